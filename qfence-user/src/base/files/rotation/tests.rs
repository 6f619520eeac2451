use std::{
    fs,
    io::Write as _,
    os::unix::fs::{chown, symlink},
    path::Path,
};

use nix::unistd::geteuid;

use super::*;
use crate::base::files::log::{Opened, open_to_append};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory of this mode, and the user who runs the tests as the trusted one.
fn scene(mode: u32) -> (tempfile::TempDir, PathBuf, Trusted) {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    set_mode(&logs, mode);
    let trusted = Trusted {
        root: geteuid().as_raw(),
        caller: None,
        command: None,
    };
    (dir, logs, trusted)
}

fn open(path: &Path, trusted: &Trusted) -> (File, Place) {
    let Opened { file, place, .. } = open_to_append(path, trusted, || {}).unwrap();
    (file, place.unwrap())
}

/// The names in a directory with their contents.
fn all(directory: &Path) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    found.sort();
    found
}

fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn so_many_earlier_files_are_kept() {
    for (keep, expected) in [
        (0, &[("log", "4")][..]),
        (1, &[("log", "4"), ("log.1", "3")]),
        (2, &[("log", "4"), ("log.1", "3"), ("log.2", "2")]),
        (
            9,
            &[("log", "4"), ("log.1", "3"), ("log.2", "2"), ("log.3", "1")],
        ),
    ] {
        let (_dir, logs, trusted) = scene(0o755);
        let (mut file, place) = open(&logs.join("log"), &trusted);
        for number in 1..=4 {
            if number > 1 {
                file = place.begin_anew(&file, keep, &trusted).unwrap().unwrap();
            }
            write!(file, "{number}").unwrap();
        }
        assert_eq!(all(&logs), named(expected), "{keep}");
    }
}

#[test]
fn a_number_that_is_free_takes_the_rest() {
    let (_dir, logs, trusted) = scene(0o755);
    fs::write(logs.join("log.1"), "a").unwrap();
    fs::write(logs.join("log.3"), "c").unwrap();
    let (file, place) = open(&logs.join("log"), &trusted);
    place.begin_anew(&file, 3, &trusted).unwrap().unwrap();
    let expected = [("log", ""), ("log.1", ""), ("log.2", "a"), ("log.3", "c")];
    assert_eq!(all(&logs), named(&expected));
}

#[test]
fn the_new_file_has_the_permissions_of_the_one_before() {
    let (_dir, logs, trusted) = scene(0o755);
    let (file, place) = open(&logs.join("log"), &trusted);
    set_mode(&logs.join("log"), 0o640);
    if geteuid().is_root() {
        chown(logs.join("log"), Some(65_534), Some(65_534)).unwrap();
    }
    let before = file.metadata().unwrap();
    let file = place.begin_anew(&file, 1, &trusted).unwrap().unwrap();
    let after = file.metadata().unwrap();
    assert_eq!(after.mode() & 0o7777, 0o640);
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino());
}

#[test]
fn a_file_that_was_moved_away_is_not_moved_again() {
    let (_dir, logs, trusted) = scene(0o755);
    let log = logs.join("log");
    let ((mut one, place), (other, _)) = (open(&log, &trusted), open(&log, &trusted));
    one.write_all(b"1").unwrap();
    // Another fence that shares the file is as far.
    let mut new = place.begin_anew(&one, 2, &trusted).unwrap().unwrap();
    new.write_all(b"2").unwrap();
    assert!(place.begin_anew(&other, 2, &trusted).unwrap().is_none());
    assert_eq!(all(&logs), named(&[("log", "2"), ("log.1", "1")]));
    // A file that is gone is made anew, and nothing else is moved.
    fs::remove_file(&log).unwrap();
    place.begin_anew(&new, 2, &trusted).unwrap().unwrap();
    assert_eq!(all(&logs), named(&[("log", ""), ("log.1", "1")]));
}

#[test]
fn files_that_are_no_logs_are_not_touched() {
    let is_root = geteuid().is_root();
    for (mode, kind, refused) in [
        (0o755, "directory", Some(Refusal::NoLog)),
        (0o755, "link", Some(Refusal::NoLog)),
        (0o1777, "link", Some(Refusal::NoLog)),
        (0o1777, "other", Some(Refusal::OtherUser)),
        (0o1777, "second", Some(Refusal::SecondName)),
        (0o755, "other", None),
        (0o1777, "own", None),
    ] {
        if kind == "other" && !is_root {
            // Only root can make another user's file.
            continue;
        }
        let (dir, logs, trusted) = scene(mode);
        let (mut file, place) = open(&logs.join("log"), &trusted);
        file.write_all(b"line").unwrap();
        let (taken, aside) = (logs.join("log.2"), dir.path().join("aside"));
        fs::write(logs.join("log.1"), "1").unwrap();
        fs::write(&aside, "theirs").unwrap();
        match kind {
            "directory" => fs::create_dir(&taken).unwrap(),
            "link" => symlink(&aside, &taken).unwrap(),
            "second" => fs::hard_link(&aside, &taken).unwrap(),
            _ => fs::write(&taken, "2").unwrap(),
        }
        if kind == "other" {
            chown(&taken, Some(65_534), None).unwrap();
        }
        let before = all(&logs);
        let found = match place.begin_anew(&file, 2, &trusted) {
            Ok(made) => {
                assert!(made.is_some());
                None
            }
            Err(PathError::Refused { why, path }) => {
                assert_eq!(path, taken);
                Some(why)
            }
            Err(PathError::Io(error)) => panic!("{error}"),
        };
        assert_eq!(found, refused, "{mode:o} {kind}");
        if refused.is_some() {
            assert_eq!(all(&logs), before, "{mode:o} {kind}");
        } else {
            let expected = [("log", ""), ("log.1", "line"), ("log.2", "1")];
            assert_eq!(all(&logs), named(&expected), "{mode:o} {kind}");
        }
        assert_eq!(fs::read_to_string(aside).unwrap(), "theirs");
    }
}

#[test]
fn a_lock_that_somebody_else_has_is_not_waited_for() {
    let (_dir, logs, trusted) = scene(0o755);
    let (file, place) = open(&logs.join("log"), &trusted);
    let theirs = File::open(logs.join("log")).unwrap();
    theirs.lock().unwrap();
    place.begin_anew(&file, 1, &trusted).unwrap().unwrap();
    assert_eq!(all(&logs), named(&[("log", ""), ("log.1", "")]));
}

#[test]
fn what_cannot_be_renamed_has_no_place() {
    let (_dir, _, trusted) = scene(0o755);
    let opened = open_to_append(Path::new("/dev/null"), &trusted, || {}).unwrap();
    assert!(opened.place.is_none());
}
