//! A signal that comes while `exec` starts ends the start: the command is not there yet, so that it cannot have got it.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::{Fence, qfence},
    job::{ensure_ended, ensure_no_stand_in, launch, stand_ins, supervisor},
    remains,
    run::{to_end, wait_until, without_sudo},
    terminal::{CTRL_C, CTRL_Z, PROMPT, Terminal},
};

/// Runs a command whose supervisor gets a signal as it enters a call, from the kernel like a key's.
fn start(fence: &Fence, call: &str, signal: Option<Signal>) -> Result<tests::run::Ended> {
    let mut command = std::process::Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e"]);
    command.arg(format!("trace={call}"));
    if let Some(signal) = signal {
        let name = &signal.as_str()[3..];
        command.args(["-e", &format!("inject={call}:signal={name}:when=1")]);
    }
    command.arg(qfence()?);
    command.args(["exec", "--name", fence.name(), "--log", "none"]);
    command.args(["--user", "nobody", "--", "echo", "ran"]);
    without_sudo(&mut command);
    to_end(command)
}

#[test]
fn a_signal_during_the_start_ends_it() -> Result<()> {
    // Of the first thread, the first of these calls are after the signals are blocked, and before the command.
    for call in ["bpf", "clone3"] {
        let fence = Fence::new("signalled")?;
        let ended = start(&fence, call, None)?;
        ensure!(
            ended.code() == Some(0) && ended.stdout == "ran\n",
            "{ended:?}"
        );
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ] {
            let fence = Fence::new("signalled")?;
            let ended = start(&fence, call, Some(signal))?;
            ensure!(
                ended.code() == Some(128 + signal as i32),
                "{call} {signal}: {ended:?}"
            );
            ensure!(ended.stdout.is_empty(), "{call} {signal}: {ended:?}");
            ensure!(
                ended.stderr.contains(" has ended the wait for the "),
                "{ended:?}"
            );
            remains::ensure_none(fence.name())?;
        }
    }
    Ok(())
}

#[test]
fn ctrl_c_is_not_lost_whenever_it_is_typed() -> Result<()> {
    let mut terminal = Terminal::start()?;
    for _ in 0..5 {
        let fence = Fence::new("typed")?.with(&["--user", "nobody"]);
        let cgroup = remains::cgroup(fence.name())?;
        launch(&mut terminal, &fence, "sleep 20")?;
        // The signals are blocked, and the command is not there.
        wait_until("it begins", || Ok(cgroup.exists()))?;
        terminal.press(CTRL_C)?;
        terminal.expect(PROMPT)?;
        ensure_ended(&mut terminal, &fence, 130)?;
    }
    Ok(())
}

#[test]
fn ctrl_z_is_not_lost_whenever_it_is_typed() -> Result<()> {
    let mut terminal = Terminal::start()?;
    for milliseconds in 0..16 {
        let fence = Fence::new("stopped")?.with(&["--user", "nobody"]);
        launch(&mut terminal, &fence, "sleep 20")?;
        wait_until("it begins", || Ok(supervisor(&fence).is_ok()))?;
        sleep(Duration::from_millis(3 * milliseconds));
        terminal.press(CTRL_Z)?;
        terminal.expect(PROMPT)?;
        let jobs = terminal.run("jobs")?;
        ensure!(jobs.contains("[1]+  Stopped"), "{milliseconds}: {jobs:?}");
        terminal.type_line("fg")?;
        terminal.wait_for_foreground(supervisor(&fence)?)?;
        terminal.press(CTRL_C)?;
        terminal.expect(PROMPT)?;
        ensure_ended(&mut terminal, &fence, 130)?;
    }
    Ok(())
}

#[test]
fn a_stop_before_the_command_is_executed_stops_the_command() -> Result<()> {
    let mut terminal = Terminal::start()?;
    let fence = Fence::new("early-stop")?.with(&["--user", "nobody"]);
    let strace =
        "strace -f -I4 -qq -o /dev/null -e trace=setgroups -e inject=setgroups:delay_enter=1000000";
    terminal.type_line(&format!(
        "{strace} {} sleep 1000",
        fence.launcher().join(" ")
    ))?;
    let is_delayed = |pid: u32| {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        call.starts_with(&format!("{} ", libc::SYS_setgroups))
    };
    wait_until("the child is about to become the user", || {
        let pids = remains::pids(fence.name()).unwrap_or_default();
        Ok(pids.into_iter().any(is_delayed))
    })?;
    terminal.press(CTRL_Z)?;
    // It is started for a command that is stopped.
    wait_until("somebody stands in for the supervisor", || {
        Ok(stand_ins(&fence)?.len() == 1)
    })?;
    let pid = Pid::from_raw(i32::try_from(supervisor(&fence)?)?);
    wait_until("the job goes on", || {
        kill(pid, Signal::SIGCONT)?;
        Ok(stand_ins(&fence)?.is_empty())
    })?;
    ensure_no_stand_in(&fence)?;
    terminal.press(CTRL_C)?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 130)
}
