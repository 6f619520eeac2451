//! `exec` ends as its command does, and a signal to it is a signal to the command.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::{
    fence::Fence,
    remains,
    run::{self, fenced, to_end, without_sudo},
    shell::Shell,
    workspace,
};

/// Runs words in a fence of their own, and makes sure that nothing is left of it.
fn run_in_fence(words: &[&str]) -> Result<run::Ended> {
    let fence = Fence::new("exit")?;
    let ended = to_end(fenced(&fence, words))?;
    remains::ensure_none(fence.name())?;
    Ok(ended)
}

/// Starts a shell in a fence, which sets its traps and then is in a loop of its own.
fn looping(fence: &Fence, traps: &str) -> Result<Shell> {
    let mut shell = Shell::start(fenced(fence, &["sh"]))?;
    remains::ensure_whole(fence.name())?;
    shell.tell(&format!(
        "{traps}; echo ready; while :; do sleep 0.02; done"
    ))?;
    assert_eq!(shell.next_line()?, "ready");
    Ok(shell)
}

/// A caller that prepares itself by `preparation` and then becomes the command that follows.
fn prepared(preparation: &[&str], command: &Command) -> Command {
    let mut caller = Command::new(preparation[0]);
    caller
        .args(&preparation[1..])
        .arg(command.get_program())
        .args(command.get_args());
    without_sudo(&mut caller);
    caller
}

#[test]
fn the_status_is_the_commands_own() -> Result<()> {
    for status in [0, 1, 3, 125, 127, 255] {
        let ended = run_in_fence(&["sh", "-c", &format!("echo ran; exit {status}")])?;
        assert_eq!(ended.code(), Some(status), "{ended:?}");
        assert_eq!(ended.stdout, "ran\n");
    }
    Ok(())
}

#[test]
fn a_command_that_a_signal_ends_is_128_and_its_number() -> Result<()> {
    for signal in [1, 2, 3, 6, 9, 11, 13, 14, 15, 16] {
        let script = format!("ulimit -c 0; kill -{signal} $$; exit 1");
        let ended = run_in_fence(&["sh", "-c", &script])?;
        assert_eq!(ended.code(), Some(128 + signal), "{ended:?}");
    }
    Ok(())
}

#[test]
fn so_it_is_for_a_real_time_signal() -> Result<()> {
    for signal in [34, 50, 64] {
        let ended = run_in_fence(&["bash", "-c", &format!("kill -{signal} $$; exit 1")])?;
        assert_eq!(ended.code(), Some(128 + signal), "{ended:?}");
    }
    Ok(())
}

#[test]
fn failures_of_qfence_are_125() -> Result<()> {
    let missing = "/nonexistent/log";
    let name = tests::fence::unique_name("exit");
    let mut command = Command::new(tests::fence::qfence()?);
    command.args(["exec", "--name", &name, "--log", missing, "--", "true"]);
    assert_eq!(to_end(command)?.code(), Some(125));
    remains::ensure_none(&name)
}

#[test]
fn what_cannot_be_executed_is_126() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plain = dir.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n")?;
    for (path, why) in [
        (plain.display(), "Permission denied (os error 13)"),
        (dir.path().display(), "Permission denied (os error 13)"),
    ] {
        let ended = run_in_fence(&[&path.to_string()])?;
        assert_eq!(ended.code(), Some(126), "{ended:?}");
        let message = format!("qfence: error: cannot start \"{path}\": {why}");
        assert_eq!(ended.stderr.lines().last(), Some(message.as_str()));
    }
    // The positive control: all it wants is the permission.
    workspace::make_readable(&plain)?;
    assert_eq!(
        run_in_fence(&[&plain.display().to_string()])?.code(),
        Some(0)
    );
    Ok(())
}

#[test]
fn what_is_not_there_is_127() -> Result<()> {
    for program in [
        "no-such-program-anywhere",
        "/nonexistent/program",
        "./nothing-here",
    ] {
        let ended = run_in_fence(&[program])?;
        assert_eq!(ended.code(), Some(127), "{ended:?}");
        let message = format!("qfence: error: cannot start \"{program}\": not found");
        assert_eq!(ended.stderr.lines().last(), Some(message.as_str()));
    }
    Ok(())
}

/// A command of nobody, with one more directory in front of PATH.
fn of_nobody(directory: &Path, program: &str) -> Result<run::Ended> {
    let fence = Fence::new("path")?.with(&["--user", "nobody"]);
    let mut command = fenced(&fence, &[program]);
    let path = std::env::var("PATH")?;
    command.env("PATH", format!("{}:{path}", directory.display()));
    let ended = to_end(command)?;
    remains::ensure_none(fence.name())?;
    Ok(ended)
}

#[test]
fn a_directory_of_path_that_may_not_be_searched_has_nothing_in_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let closed = dir.path().join("closed");
    fs::create_dir(&closed)?;
    let plain = closed.join("qfence-plain");
    fs::write(&plain, "#!/bin/sh\n")?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    for program in ["no-such-program-anywhere", "qfence-plain"] {
        let ended = of_nobody(&closed, program)?;
        assert_eq!(ended.code(), Some(127), "{ended:?}");
        let message = format!("qfence: error: cannot start \"{program}\": not found");
        assert_eq!(ended.stderr.lines().last(), Some(message.as_str()));
    }
    // The controls: a later directory has the command; and a file that was found, but may not be executed.
    assert_eq!(of_nobody(&closed, "true")?.code(), Some(0));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644))?;
    let ended = of_nobody(&closed, "qfence-plain")?;
    assert_eq!(ended.code(), Some(126), "{ended:?}");
    let message = "qfence: error: cannot start \"qfence-plain\": Permission denied (os error 13)";
    assert_eq!(ended.stderr.lines().last(), Some(message));
    workspace::make_readable(&plain)?;
    assert_eq!(of_nobody(&closed, "qfence-plain")?.code(), Some(0));
    Ok(())
}

#[test]
fn a_signal_to_the_supervisor_is_passed_on() -> Result<()> {
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGQUIT, "QUIT"),
    ] {
        let fence = Fence::new("passed")?;
        let mut shell = looping(&fence, &format!("trap 'echo got {name}; exit 5' {name}"))?;
        shell.signal(signal)?;
        assert_eq!(shell.next_line()?, format!("got {name}"));
        assert_eq!(shell.wait_for_code()?, 5);
        remains::ensure_none(fence.name())?;

        let mut shell = looping(&fence, "ulimit -c 0")?;
        shell.signal(signal)?;
        assert_eq!(shell.wait_for_code()?, 128 + signal as i32);
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}

#[test]
fn a_signal_that_the_caller_ignores_stays_ignored() -> Result<()> {
    let fence = Fence::new("nohup")?;
    let nohup = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"];
    let mut shell = Shell::start(prepared(&nohup, &fenced(&fence, &["sh"])))?;
    let status = fs::read_to_string(format!("/proc/{}/status", shell.pid()?))?;
    assert!(has(&status, "SigIgn", &[Signal::SIGHUP])?, "{status}");
    shell.signal(Signal::SIGHUP)?;
    shell.ask("true")?;
    // TERM comes after HUP: what HUP would have done is done by then.
    shell.signal(Signal::SIGTERM)?;
    assert_eq!(shell.wait_for_code()?, 128 + 15);
    remains::ensure_none(fence.name())
}

/// Whether a field of `/proc/PID/status` has all these signals.
fn has(status: &str, field: &str, signals: &[Signal]) -> Result<bool> {
    let line = status.lines().find(|line| line.starts_with(field));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    let set = u64::from_str_radix(digits.context("no such field")?, 16)?;
    let bit = |signal: &Signal| 1 << (*signal as i32 - 1);
    Ok(signals.iter().all(|signal| set & bit(signal) != 0))
}

/// What `/proc/self/status` says of signals, in a command that a prepared caller runs without and
/// with a fence.
fn signals_without_and_with(preparation: &[&str]) -> Result<[String; 2]> {
    let fence = Fence::new("signals")?;
    let words = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];
    let mut plain = Command::new(words[0]);
    plain.args(&words[1..]);
    let outside = to_end(prepared(preparation, &plain))?;
    let inside = to_end(prepared(preparation, &fenced(&fence, &words)))?;
    assert_eq!(inside.code(), Some(0), "{inside:?}");
    assert_eq!(outside.stdout.lines().count(), 3, "{outside:?}");
    remains::ensure_none(fence.name())?;
    Ok([outside.stdout, inside.stdout])
}

#[test]
fn the_command_gets_the_callers_mask_and_dispositions() -> Result<()> {
    let [outside, inside] = signals_without_and_with(&["env"])?;
    assert_eq!(outside, inside);
    let odd = [
        "env",
        "--block-signal=USR1,TERM,CHLD,TTOU",
        "--ignore-signal=HUP,QUIT,USR2,TSTP",
    ];
    let [outside, inside] = signals_without_and_with(&odd)?;
    let blocked = [Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGCHLD];
    assert!(has(&outside, "SigBlk", &blocked)?, "{outside}");
    let ignored = [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR2];
    assert!(has(&outside, "SigIgn", &ignored)?, "{outside}");
    assert_eq!(outside, inside);
    Ok(())
}

#[test]
fn a_broken_pipe_that_the_caller_ignores_stays_ignored() -> Result<()> {
    let [outside, inside] = signals_without_and_with(&["env", "--ignore-signal=PIPE"])?;
    assert!(has(&outside, "SigIgn", &[Signal::SIGPIPE])?, "{outside}");
    assert_eq!(outside, inside);
    Ok(())
}

#[test]
fn a_caller_that_ignores_its_children_gets_the_status_all_the_same() -> Result<()> {
    let ignoring = ["env", "--ignore-signal=CHLD"];
    let [outside, inside] = signals_without_and_with(&ignoring)?;
    assert!(has(&outside, "SigIgn", &[Signal::SIGCHLD])?, "{outside}");
    assert_eq!(outside, inside);
    let fence = Fence::new("chld")?;
    let ended = to_end(prepared(
        &ignoring,
        &fenced(&fence, &["sh", "-c", "exit 3"]),
    ))?;
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    remains::ensure_none(fence.name())
}
