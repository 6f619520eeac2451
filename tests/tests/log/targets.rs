//! Where a log goes: files, pipes, standard error, nowhere.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, process::Command};

use anyhow::Result;
use nix::fcntl::OFlag;
use tests::{
    fence::{Fence, qfence, unique_name},
    probe,
    world::World,
};

#[test]
fn a_log_nobody_reads_loses_lines_and_counts_them_and_holds_nobody_up() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    // Opened for both, so that opening does not wait; full, and never read.
    let mut unread = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(&pipe)?;
    while unread.write(&[b'x'; 4096]).is_ok() {}
    let name = unique_name("unread");
    let output = world
        .host
        .command(qfence()?)
        .args(["exec", "--name", &name, "--user", "nobody", "--log"])
        .arg(&pipe)
        .arg("--")
        .arg(probe::program()?)
        .args(["--flood", "10000", "udp/127.0.0.1/9"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("10000 of 10000 refusals are not in the log"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn a_full_disk_is_told_and_counted() -> Result<()> {
    let world = World::new()?;
    let name = unique_name("full");
    let output = world
        .host
        .command(qfence()?)
        .args([
            "exec",
            "--name",
            &name,
            "--user",
            "nobody",
            "--log",
            "/dev/full",
            "--",
        ])
        .arg(probe::program()?)
        .args(["--flood", "10", "udp/127.0.0.1/9"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    let told = "cannot write the log /dev/full: No space left on device";
    assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
    assert!(
        stderr.contains("10 of 10 refusals are not in the log"),
        "{stderr}"
    );
    Ok(())
}

#[test]
fn text_goes_to_standard_error_and_none_to_nowhere() -> Result<()> {
    let world = World::new()?;
    for (target, expected) in [("stderr", 1), ("none", 0)] {
        let name = unique_name("target");
        let output = world
            .host
            .command(qfence()?)
            .args([
                "exec", "--name", &name, "--user", "nobody", "--log", target, "--",
            ])
            .arg(probe::program()?)
            .arg("tcp/::ffff:127.0.0.1/22")
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let line = format!(" {name} denied tcp 127.0.0.1:22 connect6 pid ");
        assert_eq!(
            stderr.matches(&line).count(),
            expected,
            "{target}: {stderr}"
        );
        let end = stderr
            .lines()
            .filter(|line| line.ends_with(" rule deny host"))
            .count();
        assert_eq!(end, expected, "{target}: {stderr}");
        let outcomes: Vec<probe::ProbeResult> =
            probe::read_lines(&String::from_utf8(output.stdout)?)?;
        assert!(
            outcomes
                .iter()
                .all(|outcome| outcome.failed_with("ECONNREFUSED")),
            "{outcomes:?}"
        );
    }
    Ok(())
}

#[test]
fn a_word_that_is_taken_for_standard_output_makes_no_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for target in ["-", "stdout", "json:-", "text:stdout", "json"] {
        let output = Command::new(qfence()?)
            .current_dir(dir.path())
            .args(["exec", "--log", target, "--", "true"])
            .output()?;
        assert_eq!(output.status.code(), Some(125), "{output:?}");
        let stderr = String::from_utf8(output.stderr)?;
        assert!(
            stderr.contains("for a file of that name give a path, ./"),
            "{stderr}"
        );
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "{target}");
    }
    // The controls: a file of that name, and standard output with the command's.
    for (target, is_file) in [("./stdout", true), ("/dev/stdout", false)] {
        let output = Command::new(qfence()?)
            .current_dir(dir.path())
            .args(["exec", "--name", &unique_name("stdout"), "--user", "nobody"])
            .args(["--log", target, "--"])
            .arg(probe::program()?)
            .arg("udp/127.0.0.1/9")
            .output()?;
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout)?;
        let denied = " denied udp 127.0.0.1:9 ";
        assert_eq!(stdout.contains(denied), !is_file, "{stdout}");
        let text = fs::read_to_string(dir.path().join("stdout"))?;
        assert_eq!(text.matches(denied).count(), 1, "{text}");
    }
    Ok(())
}

#[test]
fn traces_are_printed_when_asked_for_twice_and_steps_when_once() -> Result<()> {
    let world = World::new()?;
    for (verbosity, steps, traces) in [("-v", true, false), ("-vv", true, true)] {
        let fence = Fence::new("verbose")?.with(&["--user", "nobody", verbosity]);
        let output = fence
            .command(&world.host, probe::program()?)
            .args(["udp/127.0.0.1/9", "udp/192.0.2.1/9"])
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        let said = |text: &str| stderr.contains(text);
        assert_eq!(said("loaded the eBPF programs"), steps, "{stderr}");
        assert_eq!(
            said("trace: sendmsg4: ::ffff:127.0.0.1 port 9 "),
            traces,
            "{stderr}"
        );
        assert_eq!(
            said("trace: sendmsg4: ::ffff:192.0.2.1 port 9 "),
            traces,
            "{stderr}"
        );
    }
    Ok(())
}
