//! With `--keep` the supervisor goes on in the background when the command has ended; without it a command that goes into
//! the background is told.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};
use tests::{
    fence::{Fence, qfence},
    job::{ensure_ended, launch, process_named, supervisor, wait_for_state},
    listener::Listeners,
    namespace::NOBODY,
    probe, remains,
    run::{fenced, to_end, wait_until},
    shell::{Shell, state_of},
    terminal::{CTRL_C, CTRL_Z, PROMPT, Terminal},
    workspace,
    world::World,
};

const PORT: u16 = 8080;

/// A command that leaves a shell behind, which reads the lines of the test.
const LEAVES_SHELL: &str = "exec 3<&0; setsid sh <&3 3<&- & exit 6";

/// A command that leaves a process without any stream of the caller. It waits until that has a session of its own.
const LEAVES_DAEMON: &str =
    "x=$(setsid sh -c 'exec sleep 1000 < /dev/null > /dev/null 2>&1' &); exit 6";

const NEW: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 77));

fn kept(label: &str) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody", "--keep"]))
}

fn is_gone(pid: u32) -> bool {
    state_of(pid).is_none_or(|state| state == 'Z')
}

fn pid(number: u32) -> Result<Pid> {
    Ok(Pid::from_raw(number.try_into()?))
}

fn state(fence: &Fence) -> Result<String> {
    let mut ps = Command::new(qfence()?);
    ps.args(["ps", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&to_end(ps)?.stdout)?;
    let row = rows.into_iter().find(|row| row["name"] == fence.name());
    let row = row.unwrap_or_default();
    Ok(row["state"].as_str().unwrap_or("none").to_owned())
}

fn rm(fence: &Fence) -> Result<()> {
    let mut rm = Command::new(qfence()?);
    rm.args(["rm", fence.name()]);
    let ended = to_end(rm)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    remains::ensure_none(fence.name())
}

#[test]
fn a_kept_fence_is_logged_and_followed_after_exec_has_returned() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf("nameserver 127.0.0.53\n")?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let _dns = Listeners::everywhere(&world.host, 53)?;
    let fence = kept("stays")?;
    let mut command = fence.command(&world.host, "sh");
    command.args(["-c", LEAVES_SHELL]);
    let mut shell = Shell::start(command)?;
    assert_eq!(shell.wait_for_code()?, 6);
    let supervisor = supervisor(&fence)?;
    assert_eq!(
        getsid(Some(pid(supervisor)?))?,
        pid(supervisor)?,
        "a session of its own"
    );

    // Logged.
    let attempt = format!("tcp/127.0.0.1/{PORT}");
    assert!(probe::run_as(NOBODY, &world.host, &[&attempt])?[0].is_reached());
    assert!(shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"));
    fence.await_refusal(|refusal| refusal.port == PORT && refusal.destination == "127.0.0.1")?;
    // The host is followed.
    let attempt = format!("udp/{NEW}/{PORT}");
    world.add_host_address(NEW, "lo")?;
    assert!(probe::run_as(NOBODY, &world.host, &[&attempt])?[0].is_reached());
    wait_until("the new address is refused", || {
        Ok(shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"))
    })?;
    // The nameservers are.
    assert!(shell.attempt(&["tcp/127.0.0.53/53"])?[0].is_reached());
    world.write_resolv_conf("nameserver 127.0.0.54\n")?;
    wait_until("the nameserver is another", || {
        Ok(shell.attempt(&["tcp/127.0.0.54/53"])?[0].is_reached())
    })?;

    // When the last process has ended, so has the supervisor, and nothing is left.
    shell.close_input();
    wait_until("the supervisor has ended", || Ok(is_gone(supervisor)))?;
    remains::ensure_none(fence.name())
}

/// `to_end` fails if a process keeps the streams.
#[test]
fn the_callers_pipes_end_when_exec_returns() -> Result<()> {
    let fence = kept("pipes")?.with(&["--log", "stderr"]);
    let ended = to_end(fenced(&fence, &["sh", "-c", LEAVES_DAEMON]))?;
    assert_eq!(ended.code(), Some(6), "{ended:?}");
    let name = fence.name();
    let shown = format!("`qfence-user logs -f {name}` shows its refusals from now on");
    assert!(ended.stderr.contains(&shown), "{ended:?}");
    assert_eq!(state(&fence)?, "running");
    rm(&fence)
}

/// A log at a path is begun anew, and the caller's standard output goes on.
#[test]
fn a_log_to_standard_output_goes_on_after_logs_are_reopened() -> Result<()> {
    let fence = kept("stdout")?.with(&["--log", "json:/dev/stdout"]);
    let log = fence.log();
    let out = tempfile::NamedTempFile::new()?;
    let tries = "for port in $(seq 1000 1999); do echo >/dev/udp/127.0.0.1/$port; sleep 0.1; done";
    let mut command = fenced(&fence, &["setsid", "-f", "bash", "-c", tries]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(out.reopen()?);
    assert!(command.status()?.success());
    let last = |path: &Path| -> Result<u64> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text
            .lines()
            .rev()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        Ok(lines
            .filter_map(|line| line["port"].as_u64())
            .next()
            .unwrap_or_default())
    };
    let is_on = |path: &Path, port: u64| {
        wait_until("the log goes on", || Ok(last(path)? >= port))
            .with_context(|| format!("{} after {port}", path.display()))
    };
    is_on(out.path(), 1003)?;
    let moved = log.with_extension("moved");
    fs::rename(&log, &moved)?;
    kill(pid(supervisor(&fence)?)?, Signal::SIGUSR1)?;
    // The control.
    is_on(&log, 1004)?;
    is_on(out.path(), last(&log)? + 3)?;
    fs::remove_file(moved)?;
    rm(&fence)
}

#[test]
fn a_signal_ends_the_background_supervisor_alone() -> Result<()> {
    let fence = kept("leave")?;
    assert_eq!(
        to_end(fenced(&fence, &["sh", "-c", LEAVES_DAEMON]))?.code(),
        Some(6)
    );
    let supervisor = supervisor(&fence)?;
    kill(pid(supervisor)?, Signal::SIGTERM)?;
    wait_until("the supervisor has ended", || Ok(is_gone(supervisor)))?;
    assert_eq!(state(&fence)?, "orphaned");
    rm(&fence)
}

#[test]
fn a_closed_terminal_does_not_end_what_is_kept() -> Result<()> {
    let fence = kept("hangup")?;
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, "sh -c 'setsid sleep 1000 & exit 6'")?;
    terminal.expect(PROMPT)?;
    let shown = terminal.run("echo status=$?")?;
    assert!(shown.contains("status=6\r\n"), "{shown:?}");
    let supervisor = supervisor(&fence)?;
    drop(terminal);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(state(&fence)?, "running");
    assert!(!is_gone(supervisor));
    rm(&fence)
}

#[test]
fn a_job_with_keep_stops_goes_on_and_ends() -> Result<()> {
    let fence = kept("job")?;
    let mut terminal = Terminal::start()?;
    let answering = r#"sh -c 'echo begun; while read line; do echo "<$line>"; done'"#;
    launch(&mut terminal, &fence, answering)?;
    terminal.expect("begun\r\n")?;
    let (supervisor, command) = (supervisor(&fence)?, process_named(&fence, "sh")?);
    for round in 1..=2 {
        terminal.press(CTRL_Z)?;
        terminal.expect(PROMPT)?;
        wait_for_state(supervisor, 'T')?;
        wait_for_state(command, 'T')?;
        let jobs = terminal.run("jobs")?;
        assert!(jobs.contains("[1]+  Stopped"), "{jobs:?}");
        terminal.type_line("fg")?;
        terminal.expect("echo begun")?;
        terminal.type_line(&format!("line {round}"))?;
        terminal.expect(&format!("<line {round}>\r\n"))?;
    }
    terminal.press(CTRL_C)?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 130)
}

#[test]
fn a_signal_for_exec_reaches_the_command() -> Result<()> {
    let fence = kept("term")?;
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    assert_ne!(supervisor(&fence)?, shell.started());
    shell.ask("trap 'exit 9' TERM")?;
    shell.signal(Signal::SIGTERM)?;
    shell.tell("sleep 1")?;
    assert_eq!(shell.wait_for_code()?, 9);
    assert_eq!(shell.stderr(), "");
    remains::ensure_none(fence.name())
}

/// The supervisor does not depend on the process that the caller waits for.
#[test]
fn a_killed_exec_leaves_the_supervisor() -> Result<()> {
    let fence = kept("front")?;
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let supervisor = supervisor(&fence)?;
    shell.kill_supervisor()?;
    wait_until("it has a session of its own", || {
        Ok(getsid(Some(pid(supervisor)?))? == pid(supervisor)?)
    })?;
    shell.ask("true")?;
    assert_eq!(state(&fence)?, "running");
    shell.close_input();
    wait_until("the supervisor has ended", || Ok(is_gone(supervisor)))?;
    remains::ensure_none(fence.name())
}

#[test]
fn without_keep_a_daemon_is_told_how_to_be_kept() -> Result<()> {
    let fence = Fence::new("daemon")?.with(&["--user", "nobody"]);
    let ended = to_end(fenced(&fence, &["sh", "-c", LEAVES_DAEMON]))?;
    assert_eq!(ended.code(), Some(6), "{ended:?}");
    let said =
        "qfence: ends 1 processes that the command left in the background; --keep keeps them\n";
    assert_eq!(ended.stderr, said);
    // The control: nothing is said of what ends with the command.
    let fence = Fence::new("no-daemon")?.with(&["--user", "nobody"]);
    let ended = to_end(fenced(&fence, &["sh", "-c", "setsid true; exit 6"]))?;
    assert_eq!(ended.stderr, "");
    Ok(())
}

#[test]
fn a_qemu_with_daemonize_is_told_at_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    workspace::make_readable(directory.path())?;
    let qemu = directory.path().join("qemu-system-x86_64");
    fs::write(&qemu, format!("#!/bin/sh\n{LEAVES_DAEMON}\n"))?;
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
    let qemu = qemu.to_str().context("a path")?;
    let begin = "qfence: hint: with -daemonize the command ends as soon as the guest runs";
    for (options, argument, is_told) in [
        (&[][..], "-daemonize", true),
        (&[], "-no-reboot", false),
        (&["--keep"], "--daemonize", false),
    ] {
        let fence = Fence::new("qemu")?
            .with(&["--user", "nobody"])
            .with(options);
        let ended = to_end(fenced(&fence, &[qemu, argument]))?;
        assert_eq!(ended.code(), Some(6), "{ended:?}");
        assert_eq!(ended.stderr.starts_with(begin), is_told, "{ended:?}");
        if options.is_empty() {
            remains::ensure_none(fence.name())?;
        } else {
            rm(&fence)?;
        }
    }
    Ok(())
}
