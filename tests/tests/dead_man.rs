//! `--die-with-supervisor`: when the supervisor is killed, everything in its fence ends.

use std::{fs, io, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use tests::{
    fence::{Fence, qfence},
    job::supervisor,
    remains,
    run::{fenced, to_end, wait_until},
    shell::{Shell, state_of},
    systemd::Machine,
};

/// Without the option what is in the fence continues for longer than this.
const LONG: Duration = Duration::from_secs(3);

fn is_gone(pid: u32) -> bool {
    state_of(pid).is_none_or(|state| state == 'Z')
}

/// The processes that watch the supervisor of a fence.
pub(crate) fn dead_men(fence: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let words = fs::read(Path::new("/proc").join(name).join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).skip(1);
        if words.next() == Some(b"dead-man") && words.any(|word| word == fence.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn dead_man(fence: &Fence) -> Result<u32> {
    let found = dead_men(fence.name())?;
    assert_eq!(found.len(), 1, "{found:?}");
    Ok(found[0])
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
}

/// That nothing runs in the fence any more, and nothing is left of it.
fn await_end(fence: &Fence) -> Result<()> {
    wait_until("nothing is left of the fence", || {
        Ok(remains::of(fence.name())?.is_empty())
    })?;
    wait_until("nobody watches", || Ok(dead_men(fence.name())?.is_empty()))
}

#[test]
fn everything_ends_when_the_supervisor_is_killed() -> Result<()> {
    for keep in [false, true] {
        let fence = Fence::new("dies")?.with(&["--user", "nobody", "--die-with-supervisor"]);
        let fence = if keep { fence.with(&["--keep"]) } else { fence };
        let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
        // Also what has a session of its own, and what goes on to fork.
        shell
            .tell("setsid sh -c 'while :; do sleep 0.01; done' & setsid sleep 1000 & sleep 0.3")?;
        let command = shell.pid()?;
        assert!(remains::pids(fence.name())?.len() > 2);
        signal(supervisor(&fence)?, Signal::SIGKILL)?;
        await_end(&fence)?;
        assert!(is_gone(command));
    }
    Ok(())
}

#[test]
fn without_the_option_everything_continues() -> Result<()> {
    for options in [&[][..], &["--die-with-supervisor=no"]] {
        let fence = Fence::new("lives")?
            .with(&["--user", "nobody"])
            .with(options);
        let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
        let command = shell.pid()?;
        assert!(dead_men(fence.name())?.is_empty());
        shell.kill_supervisor()?;
        thread::sleep(LONG);
        assert!(!is_gone(command));
        remains::ensure_whole(fence.name())?;
    }
    Ok(())
}

#[test]
fn a_process_in_the_fence_cannot_stop_it() -> Result<()> {
    let fence = Fence::new("hostile")?.with(&["--user", "nobody", "--die-with-supervisor"]);
    let mut shell = Shell::start(fenced(&fence, &["bash"]))?;
    let watcher = dead_man(&fence)?;
    for name in ["KILL", "STOP", "TERM", "CONT"] {
        let tried = shell.ask(&format!("kill -{name} {watcher} 2>&1"))?;
        assert!(tried.concat().contains("not permitted"), "{tried:?}");
    }
    assert!(!is_gone(watcher));
    // As likely to be ended when memory is short as the supervisor, which is never if the kernel permits that.
    let score = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    assert_eq!(score(watcher)?, score(shell.started())?);
    shell.kill_supervisor()?;
    await_end(&fence)
}

#[test]
fn one_that_root_ends_is_replaced() -> Result<()> {
    let fence = Fence::new("replaced")?.with(&["--user", "nobody", "--die-with-supervisor"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let first = dead_man(&fence)?;
    signal(first, Signal::SIGKILL)?;
    wait_until("there is another", || {
        Ok(dead_men(fence.name())?.iter().any(|pid| *pid != first))
    })?;
    wait_until("it is reported", || {
        Ok(shell.stderr().contains("another one was started"))
    })?;
    shell.ask("true")?;
    // The new one may not be watching yet, which it does also for a process that has ended.
    shell.kill_supervisor()?;
    await_end(&fence)
}

/// The supervisor may end before another one that it started can report to it.
#[test]
fn one_that_cannot_report_ends_the_fence_all_the_same() -> Result<()> {
    let fence = Fence::new("unheard")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let command = shell.pid()?;
    let watched = i32::try_from(supervisor(&fence)?)?;
    let watched = rustix::process::Pid::from_raw(watched).context("a pid")?;
    let watched = pidfd_open(watched, PidfdFlags::empty())?;
    let (nobody_reads, output) = io::pipe()?;
    drop(nobody_reads);
    let mut switch = Command::new(qfence()?)
        .args(["dead-man", "--", fence.name()])
        .stdin(watched)
        .stdout(output)
        .spawn()?;
    shell.kill_supervisor()?;
    ensure!(switch.wait()?.success(), "it failed");
    ensure!(is_gone(command), "the command continues");
    await_end(&fence)
}

#[test]
fn it_ends_with_the_command_and_keeps_no_pipe() -> Result<()> {
    let fence = Fence::new("ends")?.with(&["--user", "nobody", "--die-with-supervisor"]);
    let ended = to_end(fenced(&fence, &["sh", "-c", "exit 4"]))?;
    assert_eq!((ended.code(), &*ended.stderr), (Some(4), ""));
    await_end(&fence)?;
    let fence = fence.with(&["--keep"]);
    let leaves = "x=$(setsid sh -c 'exec sleep 1000 < /dev/null > /dev/null 2>&1' &); exit 6";
    let ended = to_end(fenced(&fence, &["sh", "-c", leaves]))?;
    assert_eq!(ended.code(), Some(6), "{ended:?}");
    // A signal to the supervisor is for everything in the fence.
    signal(supervisor(&fence)?, Signal::SIGTERM)?;
    await_end(&fence)
}

/// A unit whose command does not end when it is asked to.
fn unit(program: &Path, kind: &str, options: &str, command: &str) -> String {
    format!(
        "[Service]\nType={kind}\nTimeoutStopSec=1\nEnvironment=PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         ExecStart={} exec --cgroup-parent top --log none --name vm --user nobody {options} -- sh -c \"{command}\"\n",
        program.display()
    )
}

#[test]
fn a_unit_that_is_stopped_leaves_nothing_running() -> Result<()> {
    let machine = Machine::boot()?;
    let program = qfence()?;
    let systemctl = |words: &[&str]| -> Result<_> {
        let mut command = machine.command("systemctl")?;
        command.args(words);
        to_end(command)
    };
    let processes = || -> Result<String> {
        let mut command = machine.command("cat")?;
        command.arg("/sys/fs/cgroup/qfence/vm/cgroup.procs");
        Ok(to_end(command)?.stdout)
    };
    let stubborn = "trap '' TERM; while :; do sleep 0.1; done";
    let daemon = "setsid sh -c 'exec sleep 1000' > /dev/null 2>&1 & sleep 0.5";
    for (kind, options, command, is_left) in [
        ("exec", "--die-with-supervisor=no", stubborn, true),
        ("exec", "", stubborn, false),
        ("forking", "--keep", daemon, false),
    ] {
        machine.write(
            "/etc/systemd/system/vm.service",
            &unit(&program, kind, options, command),
        )?;
        systemctl(&["daemon-reload"])?;
        let started = systemctl(&["start", "vm.service"])?;
        assert_eq!(started.code(), Some(0), "{started:?} {}", machine.log());
        wait_until("it runs", || Ok(!processes()?.is_empty())).with_context(|| machine.log())?;
        thread::sleep(Duration::from_secs(1));
        let active = systemctl(&["is-active", "vm.service"])?;
        assert_eq!(active.stdout, "active\n", "{kind} {options}");
        systemctl(&["stop", "vm.service"])?;
        let stopped = systemctl(&["is-active", "vm.service"])?;
        assert_ne!(stopped.stdout, "active\n");
        thread::sleep(Duration::from_secs(1));
        assert_eq!(
            !processes()?.is_empty(),
            is_left,
            "{kind} {options}: {}",
            machine.log()
        );
        let mut rm = machine.command(&program)?;
        rm.args(["rm", "vm"]);
        to_end(rm)?;
    }
    machine.end()
}
