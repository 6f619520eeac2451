//! `metrics --textfile` replaces a regular file, whole or not at all.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    process::Command,
};

use anyhow::Result;
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use tests::{
    fence::qfence,
    mounts::{host_with, mount_new},
    run::to_end,
};

use super::textfile;

#[test]
fn a_textfile_replaces_a_regular_file_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    mknod(
        &path("device"),
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 3),
    )?;
    mkfifo(&path("fifo"), Mode::S_IRWXU)?;
    fs::write(path("target"), "old")?;
    symlink(path("target"), path("link"))?;
    for (name, kind) in [
        ("device", "a device"),
        ("fifo", "a FIFO"),
        ("link", "a symbolic link"),
    ] {
        let before = fs::symlink_metadata(path(name))?;
        let ended = textfile(&path(name))?;
        assert_eq!(ended.code(), Some(125), "{name}: {ended:?}");
        assert!(
            ended.stderr.contains(&format!("it is {kind},")),
            "{ended:?}"
        );
        let after = fs::symlink_metadata(path(name))?;
        assert_eq!(after.ino(), before.ino(), "{name}");
        assert_eq!(after.file_type(), before.file_type(), "{name}");
    }
    assert_eq!(fs::read_to_string(path("target"))?, "old");
    // The control: a regular file is, and what nobody has made yet.
    for name in ["target", "new"] {
        let ended = textfile(&path(name))?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(fs::read_to_string(path(name))?.starts_with("# HELP qfence_"));
    }
    assert!(
        path("device")
            .symlink_metadata()?
            .file_type()
            .is_char_device()
    );
    assert_eq!(fs::read_dir(dir.path())?.count(), 5);
    Ok(())
}

#[test]
fn a_textfile_has_its_mode_whatever_the_umask() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (umask, name) in [("0777", "closed"), ("0000", "open")] {
        let path = dir.path().join(name);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!(
            "umask {umask}; exec {} metrics --textfile {}",
            qfence()?.display(),
            path.display()
        ));
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(path.metadata()?.permissions().mode() & 0o7777, 0o644);
    }
    Ok(())
}

#[test]
fn on_a_full_disk_the_file_before_stays_and_nothing_else() -> Result<()> {
    let host = host_with(|| {
        mount_new("tmpfs", "/mnt", Some("size=64k"))?;
        fs::write("/mnt/qfence.prom", "old")?;
        let filler = fs::File::create("/mnt/filler")?;
        // As much as there is room for.
        let filled = std::io::copy(&mut std::io::repeat(b'x'), &mut &filler);
        assert!(filled.is_err(), "the disk is not full");
        Ok(())
    })?;
    let write = || {
        let mut command = host.command(qfence()?);
        command.args(["metrics", "--textfile", "/mnt/qfence.prom"]);
        to_end(command)
    };
    let ended = write()?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("No space left on device"),
        "{ended:?}"
    );
    let look = || {
        host.run(|| {
            let count = fs::read_dir("/mnt")?.count();
            Ok((fs::read_to_string("/mnt/qfence.prom")?, count))
        })
    };
    assert_eq!(look()?, ("old".into(), 2));
    // The control: with room it is written.
    host.run(|| Ok(fs::remove_file("/mnt/filler")?))?;
    let ended = write()?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(look()?.0.starts_with("# HELP qfence_"));
    Ok(())
}
