//! The directories of /run and bpffs: only those of root are used, and no name in them leads elsewhere.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::Result;
use tests::{
    fence::unique_name,
    namespace::NOBODY,
    private::Private,
    run::{Ended, to_end},
};

/// `exec` of a command that says that it ran.
fn exec(host: &Private) -> Result<Ended> {
    let mut command = host.qfence()?;
    command.args(["exec", "--name", &unique_name("files"), "--user", "nobody"]);
    command.args(["--log", "none", "--", "echo", "ran"]);
    to_end(command)
}

#[test]
fn a_directory_of_somebody_elses_making_is_not_used() -> Result<()> {
    let host = Private::new()?;
    let namespace = host.namespace();
    // Both are in directories that all may write to: the kernel's default for bpffs, and this /run.
    for place in ["/sys/fs/bpf/qfence", "/run/qfence"] {
        let theirs = || {
            let mut command = namespace.command_as(NOBODY, "mkdir");
            command.args(["-m", "0777", place]);
            to_end(command)
        };
        let linked = || {
            let mut command = namespace.command_as(NOBODY, "ln");
            command.args(["-s", "/mnt", place]);
            to_end(command)
        };
        let made = theirs()?;
        assert_eq!(made.code(), Some(0), "control: {made:?}");
        let ended = exec(&host)?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        let said = format!("{place} belongs to the user 65534, and must be root's");
        assert!(ended.stderr.contains(&said), "{ended:?}");
        namespace.run(|| Ok(fs::remove_dir(place)?))?;

        let made = linked()?;
        assert_eq!(made.code(), Some(0), "control: {made:?}");
        let ended = exec(&host)?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        let said = format!("{place} is a symbolic link, and must be a directory of root's");
        assert!(ended.stderr.contains(&said), "{ended:?}");
        namespace.run(|| Ok(fs::remove_file(place)?))?;

        // One of root's that others can write to is as good as theirs.
        namespace.run(|| {
            fs::create_dir(place)?;
            Ok(fs::set_permissions(
                place,
                fs::Permissions::from_mode(0o777),
            )?)
        })?;
        let ended = exec(&host)?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        assert!(
            ended.stderr.contains("by others than root (mode 0777)"),
            "{ended:?}"
        );
        namespace.run(|| Ok(fs::remove_dir(place)?))?;
    }
    // The control: without them it runs, and makes both for root alone.
    let ended = exec(&host)?;
    assert_eq!(
        (ended.code(), &*ended.stdout),
        (Some(0), "ran\n"),
        "{ended:?}"
    );
    namespace.run(|| {
        for place in ["/sys/fs/bpf/qfence", "/run/qfence"] {
            let found = fs::metadata(place)?;
            assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o700), "{place}");
        }
        Ok(())
    })
}

#[test]
fn a_file_whose_name_leads_elsewhere_is_left_alone() -> Result<()> {
    let host = Private::new()?;
    let ended = exec(&host)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let others = ["/sys/fs/bpf/qfence/%2E%2E", "/run/qfence/...json"];
    host.namespace().run(|| {
        fs::create_dir(others[0])?;
        fs::write(others[1], "{}")?;
        // The control: what a dead fence left is cleared.
        fs::create_dir("/sys/fs/bpf/qfence/dead")?;
        Ok(fs::write("/run/qfence/dead.json", "{}")?)
    })?;
    let mut command = host.qfence()?;
    command.arg("ps");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for path in others {
        let said = format!("warning: {path:?} has no name that a fence can have: it is left alone");
        assert!(ended.stderr.contains(&said), "{ended:?}");
    }
    let cleared: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("clearing the remains"))
        .collect();
    assert_eq!(cleared, ["qfence: clearing the remains of the fence dead"]);
    assert!(host.cgroup().join("qfence").is_dir());
    host.namespace().run(|| {
        assert!(others.iter().all(|path| Path::new(path).exists()));
        assert!(!Path::new("/run/qfence/dead.json").exists());
        Ok(fs::remove_dir(others[0])?)
    })
}
