//! Links that others can have made: neither a log nor metrics go through one.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use anyhow::Result;
use tests::{
    fence::{qfence, unique_name},
    namespace::NOBODY,
    run::{Ended, to_end, without_sudo},
};

use super::textfile;

/// `exec` with a log, as called by nobody through sudo or by root alone.
fn exec_with_log(log: &Path, sudo: bool) -> Result<Ended> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "umask 022; exec {} exec --name {} --user nobody --log {} -- echo ran",
        qfence()?.display(),
        unique_name("log"),
        log.display()
    ));
    without_sudo(&mut command);
    if sudo {
        command.env("SUDO_UID", NOBODY.uid.to_string());
        command.env("SUDO_GID", NOBODY.gid.to_string());
    }
    to_end(command)
}

#[test]
fn a_log_goes_through_no_link_that_others_can_have_made() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let precious = dir.path().join("precious");
    fs::write(&precious, "")?;
    // As /tmp is.
    let shared = dir.path().join("shared");
    fs::create_dir(&shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777))?;
    let theirs = shared.join("theirs");
    symlink(&precious, &theirs)?;
    std::os::unix::fs::lchown(&theirs, Some(NOBODY.uid), Some(NOBODY.gid))?;
    // A directory of theirs, with a link that seems to be root's: it was moved there.
    let home = dir.path().join("home");
    fs::create_dir(&home)?;
    chown(&home, Some(NOBODY.uid), Some(NOBODY.gid))?;
    symlink(&precious, home.join("roots"))?;
    let second = shared.join("second");
    fs::hard_link(&precious, &second)?;
    // One that leads to what is not there yet, in a directory of theirs.
    let missing = dir.path().join("missing");
    let dangling = home.join("dangling");
    symlink(&missing, &dangling)?;
    std::os::unix::fs::lchown(&dangling, Some(NOBODY.uid), Some(NOBODY.gid))?;
    fs::hard_link(&precious, home.join("second"))?;
    // The command runs as who called sudo as a rule: they are others as well.
    for (log, sudo, said) in [
        (&theirs, false, "is a symbolic link that others"),
        (&theirs, true, "is a symbolic link that others"),
        (&home.join("roots"), false, "is a symbolic link that others"),
        (&home.join("roots"), true, "is a symbolic link that others"),
        (&dangling, true, "is a symbolic link that others"),
        (&second, false, "is a file with more than one name"),
        (
            &home.join("second"),
            true,
            "is a file with more than one name",
        ),
    ] {
        let ended = exec_with_log(log, sudo)?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    // A file of another user's, in a directory for everybody.
    let file = shared.join("file");
    fs::write(&file, "")?;
    chown(&file, Some(NOBODY.uid), Some(NOBODY.gid))?;
    let ended = exec_with_log(&file, false)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(ended.stderr.contains("is another user's"), "{ended:?}");

    assert!(!missing.exists());

    // The controls: a file of theirs will do when it is they who called sudo, and root's own always will.
    let roots = shared.join("roots");
    symlink(dir.path().join("log"), &roots)?;
    let fresh = shared.join("fresh");
    for (log, sudo) in [
        (file.as_path(), true),
        (&home.join("new"), true),
        (&roots, false),
        (&fresh, false),
        (Path::new("/dev/null"), false),
        (Path::new("/dev/stderr"), false),
    ] {
        let ended = exec_with_log(log, sudo)?;
        let context = format!("{}: {ended:?}", log.display());
        assert_eq!(
            (ended.code(), &*ended.stdout),
            (Some(0), "ran\n"),
            "{context}"
        );
    }
    let made = fs::metadata(&fresh)?;
    assert_eq!((made.uid(), made.mode() & 0o7777), (0, 0o644));
    Ok(())
}

#[test]
fn metrics_go_through_no_link_that_others_can_have_made() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let roots = dir.path().join("roots");
    fs::create_dir(&roots)?;
    // A directory of theirs, with a link to one of root's, and a link of root's to that.
    let home = dir.path().join("home");
    fs::create_dir(&home)?;
    symlink(&roots, home.join("link"))?;
    chown(&home, Some(NOBODY.uid), Some(NOBODY.gid))?;
    std::os::unix::fs::lchown(home.join("link"), Some(NOBODY.uid), Some(NOBODY.gid))?;
    symlink(&roots, dir.path().join("link"))?;
    let serve = |path: &Path| {
        let mut command = Command::new(qfence()?);
        command.args([
            "exec",
            "--name",
            &unique_name("metrics"),
            "--user",
            "nobody",
        ]);
        command.args([
            "--log",
            "none",
            "--metrics",
            &format!("unix:{}", path.display()),
        ]);
        command.args(["--", "sh", "-c", "echo ran"]);
        without_sudo(&mut command);
        to_end(command)
    };
    let said = "is a symbolic link that others";
    for ended in [
        textfile(&home.join("link/x.prom"))?,
        serve(&home.join("link/x.sock"))?,
    ] {
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
    assert_eq!(fs::read_dir(&roots)?.count(), 0);
    // The control: without a link, and by one of root's.
    for place in [home, dir.path().join("link")] {
        let ended = textfile(&place.join("x.prom"))?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert!(place.join("x.prom").is_file());
        let ended = serve(&place.join("x.sock"))?;
        assert_eq!(
            (ended.code(), &*ended.stdout),
            (Some(0), "ran\n"),
            "{ended:?}"
        );
        assert!(!place.join("x.sock").exists(), "it goes with the server");
    }
    Ok(())
}
