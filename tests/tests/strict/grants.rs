//! What a command is granted under `--strict`, and the words that say what to grant.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
};

use anyhow::Result;
use nix::mount::{MsFlags, mount};
use qfence_user::base::exit::FAILED;
use tests::{
    fence::Fence,
    mounts::{host_with, mount_new},
    run::{Ended, fenced, to_end, without_sudo},
};

fn run(options: &[&str], words: &[&str]) -> Result<Ended> {
    let fence = Fence::new("grants")?
        .with(&["--user", "nobody"])
        .with(options);
    to_end(fenced(&fence, words))
}

#[test]
fn a_refused_port_gets_a_hint_that_works() -> Result<()> {
    let bind = |port: &str| {
        format!(
            "import socket, time; s = socket.socket(); \
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', {port}))"
        )
    };
    let script = bind("18080");
    let words = ["/usr/bin/python3", "-c", &script];
    let ended = run(&["--strict=listeners"], &words)?;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let hint = "hint: the command could not bind a tcp listener 127.0.0.1:18080 (--strict=listeners); \
                give --allow-listen tcp:18080 to allow it";
    assert_eq!(ended.stderr.matches(hint).count(), 1, "{ended:?}");
    let ended = run(
        &["--strict=listeners", "--allow-listen", "tcp:18080"],
        &words,
    )?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("hint:"), "{ended:?}");
    Ok(())
}

#[test]
fn a_grant_that_allows_nothing_is_reported() -> Result<()> {
    for (options, words, is_error) in [
        (
            &["--allow-env", "FOO=bar"][..],
            "write --allow-env FOO; to set it, let the command be env FOO=bar COMMAND",
            true,
        ),
        (
            &["--allow-env", "QFENCE_IS_NOT_SET"],
            "warning: --allow-env QFENCE_IS_NOT_SET keeps nothing",
            false,
        ),
        (
            &["--allow-unix", "/nowhere/at/all"],
            "warning: --allow-unix /nowhere/at/all allows nothing as yet: No such file",
            false,
        ),
        (
            &["--allow-unix", "/etc/passwd"],
            "--allow-unix /etc/passwd: it is a file and no socket",
            true,
        ),
    ] {
        let ended = run(&[&["--strict"], options].concat(), &["echo", "ran"])?;
        let (code, stdout) = match is_error {
            true => (FAILED.into(), ""),
            false => (0, "ran\n"),
        };
        assert_eq!(ended.code(), Some(code), "{options:?}: {ended:?}");
        assert_eq!(ended.stdout, stdout, "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{options:?}: {ended:?}");
    }
    let ended = run(&["--strict", "--allow-env", "PATH"], &["true"])?;
    assert!(!ended.stderr.contains("warning: --allow"), "{ended:?}");
    Ok(())
}

#[test]
fn files_in_dev_shm_are_granted_like_others() -> Result<()> {
    let file = tempfile::Builder::new()
        .prefix("qfence-grant-")
        .tempfile_in("/dev/shm")?;
    fs::write(file.path(), "content")?;
    fs::set_permissions(
        file.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )?;
    let path = file.path().to_str().unwrap_or_default();
    let read = ["cat", path];
    let write = format!("echo more >> {path}");
    let write = ["sh", "-c", &write];
    let make = ["sh", "-c", "f=/dev/shm/qfence-$$; echo x > $f && rm $f"];
    for (options, words, is_done) in [
        // Without a grant the command has a directory of its own.
        (&[][..], &read[..], false),
        (&[], &make, true),
        (&["--allow-read", path], &read, true),
        (&["--allow-read", path], &write, false),
        (&["--allow-write", path], &write, true),
        (&["--allow-write", "/dev/shm"], &write, true),
        (&["--allow-write", "/dev/shm"], &make, true),
    ] {
        let ended = run(&[&["--strict=files"], options].concat(), words)?;
        assert_eq!(
            ended.code() == Some(0),
            is_done,
            "{options:?} {words:?}: {ended:?}"
        );
    }
    Ok(())
}

/// A file system of a user's that root may not look at. The kernel refuses root without asking the server.
#[test]
fn a_grant_that_root_cannot_open_says_why() -> Result<()> {
    let server = File::options().read(true).write(true).open("/dev/fuse")?;
    let host = host_with(|| {
        mount_new("tmpfs", "/mnt", None)?;
        fs::create_dir("/mnt/home")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=65534,group_id=65534",
            server.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("qfence-test"),
            "/mnt/home",
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )?;
        Ok(())
    })?;
    for option in ["--allow-read", "--allow-write"] {
        let fence = Fence::new("grants")?.with(&[
            "--user",
            "nobody",
            "--strict=files",
            option,
            "/mnt/home/project",
        ]);
        let mut command = fence.command(&host, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(FAILED.into()), "{ended:?}");
        let said = format!("{option} /mnt/home/project: cannot open it: Permission denied");
        assert!(ended.stderr.contains(&said), "{ended:?}");
        assert!(
            ended.stderr.contains("FUSE without allow_root"),
            "{ended:?}"
        );
    }
    Ok(())
}
