use super::*;
use crate::{base::version, policy::testing};

/// The policy file of a fence, and the directory of its pins.
fn store(dir: &Path, name: &str) -> (PolicyFile, PathBuf) {
    let pins = pins::Pins::new(dir);
    fs::create_dir(dir.join("qfence")).unwrap();
    pins.create(name).unwrap();
    let (run, pins) = (dir.join("run"), pins.directory(name));
    Directory::make_private(&run).unwrap();
    (PolicyFile::new(&run, name, &pins), pins)
}

fn stored(monitor: bool) -> StoredPolicy {
    StoredPolicy {
        policy: testing::policy(&["allow tcp:[2001:db8::1]:80,443"], monitor),
        sets: Sets::default(),
        netns: 7,
        resolv_conf: None,
        workload: None,
        devices: Vec::new(),
        generation: 1,
    }
}

#[test]
fn what_is_kept_is_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path(), "my.vm");
    assert_eq!(store.read().unwrap(), None);
    store.prepare(&stored(false)).unwrap().keep().unwrap();
    assert_eq!(store.read().unwrap(), Some(stored(false)));
    store.remove().unwrap();
    store.remove().unwrap();
    assert_eq!(store.read().unwrap(), None);
    assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
}

#[test]
fn what_is_prepared_is_not_in_its_place_yet_and_each_writing_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path(), "vm1");
    store.prepare(&stored(false)).unwrap().keep().unwrap();
    let version = store.file_version();
    let pending = store.prepare(&stored(true)).unwrap();
    assert_eq!(store.read().unwrap(), Some(stored(false)));
    assert_eq!(store.file_version(), version);
    pending.keep().unwrap();
    assert_ne!(store.file_version(), version);
    assert_eq!(store.read().unwrap(), Some(stored(true)));
}

#[test]
fn a_file_that_is_no_policy_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path(), "vm1");
    let path = dir.path().join("run/vm1.policy");
    let abi = version::abi();
    let fields = ["", r#","stored":{}"#].map(|rest| format!(r#"{{"abi":{abi}{rest}}}"#));
    for text in ["{", &fields[0], &fields[1]] {
        fs::write(&path, text).unwrap();
        let read = store.read();
        assert!(
            matches!(read, Err(ReadError::NotAPolicy { .. })),
            "{read:?}"
        );
    }
}

#[test]
fn a_policy_of_another_version_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path(), "vm1");
    store.prepare(&stored(false)).unwrap().keep().unwrap();
    let path = dir.path().join("run/vm1.policy");
    let text = fs::read_to_string(&path).unwrap();
    let abi = version::abi();
    let [own, next] = [abi, abi + 1].map(|abi| format!(r#"{{"abi":{abi},"#));
    for (other, found) in [(next.as_str(), abi + 1), ("{", 0)] {
        fs::write(&path, text.replace(&own, other)).unwrap();
        let read = store.read();
        assert!(
            matches!(&read, Err(ReadError::OtherVersion { source, .. }) if source.found == found),
            "{read:?}"
        );
    }
}

#[test]
fn two_cannot_change_a_policy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pins) = store(dir.path(), "vm1");
    let lock = store.lock().unwrap();
    assert!(store.try_lock().unwrap().is_none());
    assert!(locks::try_exclusive(&pins).unwrap().is_none());
    drop(lock);
    assert!(locks::try_exclusive(&pins).unwrap().is_some());
}

#[test]
fn the_lock_is_on_the_fence_that_was_there_before() {
    let dir = tempfile::tempdir().unwrap();
    let (store, pins) = store(dir.path(), "vm1");
    store.lock_on(store.unlocked().unwrap()).unwrap();
    let unlocked = store.unlocked().unwrap();
    fs::remove_dir_all(&pins).unwrap();
    let error = store.lock_on(unlocked).unwrap_err().to_string();
    assert!(error.contains("has ended, or was replaced"), "{error}");
    // Another one of the name.
    pins::Pins::new(dir.path()).create("vm1").unwrap();
    let unlocked = store.unlocked().unwrap();
    fs::rename(&pins, dir.path().join("aside")).unwrap();
    pins::Pins::new(dir.path()).create("vm1").unwrap();
    store.lock_on(unlocked).unwrap_err();
    store.lock().unwrap();
    store.try_lock().unwrap().unwrap();
}
