//! A start with `--strict` that cannot work is an error before anything runs.

use std::fs;

use anyhow::Result;
use nix::libc;
use qfence_user::base::exit::FAILED;
use tests::{
    fence::Fence,
    run::{Ended, fenced, to_end},
    seccomp::without_effect,
};

fn start(options: &[&str], words: &[&str]) -> Result<Ended> {
    let fence = Fence::new("strict-start")?
        .with(&["--user", "nobody"])
        .with(options);
    to_end(fenced(&fence, words))
}

#[test]
fn options_that_contradict_each_other_are_refused() -> Result<()> {
    for (options, word) in [
        (
            &["--strict", "--allow-bus"][..],
            "--allow-bus opens what --strict=sockets closes",
        ),
        (
            &["--strict=files", "--allow-foreign-netns"],
            "--allow-foreign-netns",
        ),
        (
            &["--strict=syscalls", "--allow-compat-sockopt"],
            "--allow-compat-sockopt",
        ),
        (
            &["--strict=devices", "--allow-unfenced-net"],
            "--allow-unfenced-net",
        ),
        (
            &["--allow-read", "/etc"],
            "--allow-read has no effect without --strict",
        ),
        (
            &["--allow-write", "/etc"],
            "--allow-write has no effect without --strict",
        ),
        (&["--strict", "--allow-write", "/"], "leaves no file closed"),
        (
            &["--strict", "--allow-read", "/nowhere/at/all"],
            "/nowhere/at/all",
        ),
        (&["--strict=bus"], "invalid value 'bus'"),
    ] {
        let ended = start(options, &["echo", "ran"])?;
        assert_eq!(ended.stdout, "", "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(word), "{options:?}: {ended:?}");
        assert_eq!(ended.code(), Some(FAILED.into()), "{options:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_32_bit_executable_is_refused_before_it_starts() -> Result<()> {
    let directory = tempfile::tempdir_in("/var/tmp")?;
    let program = directory.path().join("program");
    fs::write(&program, b"\x7fELF\x01\x01\x01")?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode)?;
    let ended = start(&["--strict"], &[&program.display().to_string()])?;
    assert_eq!(ended.code(), Some(FAILED.into()), "{ended:?}");
    assert!(ended.stderr.contains("32-bit"), "{ended:?}");
    Ok(())
}

/// What failed at once may lack a file: the user is told how to grant it.
#[test]
fn a_command_that_fails_at_once_gets_a_hint() -> Result<()> {
    let ended = start(&["--strict=files"], &["cat", "/root/x"])?;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("--allow-read"), "{ended:?}");
    let ended = start(&["--strict=files"], &["true"])?;
    assert!(!ended.stderr.contains("--allow-read"), "{ended:?}");
    Ok(())
}

/// A closure that the kernel seems to apply, and that has no effect, ends the start.
#[test]
fn each_closure_is_proved_at_the_start() -> Result<()> {
    for (call, option, word) in [
        (
            libc::SYS_landlock_restrict_self,
            "--strict=files",
            "prove that files are closed",
        ),
        (
            libc::SYS_landlock_restrict_self,
            "--strict=processes",
            "prove that other processes are closed",
        ),
        (
            libc::SYS_mount_setattr,
            "--strict=files",
            "prove that files are closed",
        ),
        (
            libc::SYS_seccomp,
            "--strict=syscalls",
            "install the system call filter",
        ),
        (
            libc::SYS_seccomp,
            "--strict=rights",
            "install the system call filter",
        ),
        (libc::SYS_prlimit64, "--strict=rights", "take away"),
    ] {
        let fence = Fence::new("strict-proof")?.with(&["--user", "nobody", option]);
        let words = ["echo", "ran"];
        let mut control = to_end(fenced(&fence, &words))?;
        assert_eq!(
            control.stdout, "ran\n",
            "the control of {option}: {control:?}"
        );
        let mut command = fenced(&fence, &words);
        without_effect(&mut command, call);
        control = to_end(command)?;
        assert_eq!(control.stdout, "", "{option} without {call}: {control:?}");
        assert_eq!(control.code(), Some(FAILED.into()), "{option}: {control:?}");
        assert!(control.stderr.contains(word), "{option}: {control:?}");
    }
    Ok(())
}
