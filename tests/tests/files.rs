//! The files that root writes: whole or not at all, never through what somebody else has put in the way, and
//! never by a name that leads elsewhere.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use anyhow::Result;
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use tests::{
    fence::{qfence, unique_name},
    mounts::{host_with, mount_new},
    namespace::NOBODY,
    private::Private,
    run::{Ended, to_end, without_sudo},
};

fn textfile(path: &Path) -> Result<Ended> {
    let mut command = Command::new(qfence()?);
    command.args(["metrics", "--textfile"]).arg(path);
    to_end(command)
}

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

#[test]
fn the_socket_of_the_metrics_is_roots_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("socket");
    let name = unique_name("socket");
    let mut command = Command::new("sh");
    // The fence sees the socket's file as it is while it is served.
    command.arg("-c").arg(format!(
        "umask 000; exec {} exec --name {name} --log none --metrics unix:{} -- stat -c '%F %a %u' {}",
        qfence()?.display(),
        socket.display(),
        socket.display()
    ));
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "socket 600 0\n", "{ended:?}");
    assert!(!socket.exists());
    Ok(())
}

#[test]
fn the_files_of_a_fence_are_roots_alone_whatever_the_umask() -> Result<()> {
    let host = Private::new()?;
    let look = "stat -c '%n %a' /run/qfence/* /sys/fs/bpf/qfence /sys/fs/bpf/qfence/* /run/qfence";
    let mut command = host.namespace().command("sh");
    command.arg("-c").arg(format!(
        "umask 000; exec {} exec --name vm --log none -- sh -c \"{look}\"",
        qfence()?.display()
    ));
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let mut lines: Vec<_> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "/run/qfence 700",
            "/run/qfence/kernel-offsets 600",
            "/run/qfence/vm.json 600",
            "/run/qfence/vm.log 600",
            "/run/qfence/vm.policy 600",
            "/sys/fs/bpf/qfence 700",
            "/sys/fs/bpf/qfence/vm 700",
        ],
        "{ended:?}"
    );
    Ok(())
}
