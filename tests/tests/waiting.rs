//! Who asks about a fence does not disturb others that ask, and what `exec` waits for ends with a signal.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use qfence_user::{
    base::paths::Paths,
    fence::registry::{Condition, Fences},
};
use tests::{
    fence::{Fence, qfence},
    private::Private,
    process::Process,
    remains,
    run::{fenced, to_end, wait_until, without_sudo},
    shell::Shell,
};

/// How soon a process ends that a signal is to end.
const SOON: Duration = Duration::from_secs(10);

fn lock(directory: &Path) -> Result<Flock<File>> {
    let file = File::open(directory)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", directory.display()))
}

/// Starts a command whose standard error can be read from.
fn start(mut command: Command) -> Result<(Process, impl Fn() -> String)> {
    let errors = tempfile::NamedTempFile::new()?;
    command.stderr(errors.reopen()?).stdin(Stdio::null());
    let process = Process::spawn(command)?;
    let said = move || fs::read_to_string(errors.path()).unwrap_or_default();
    Ok((process, said))
}

/// The shell's word for how a process ended: its status, or 128 and the number of a signal.
fn ends(process: &mut Process, said: &impl Fn() -> String) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = process.wait(SOON)?;
    let status = status.with_context(|| format!("it does not end: {}", said()))?;
    Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0)))
}

#[test]
fn those_who_ask_at_one_moment_do_not_take_each_other_for_the_supervisor() -> Result<()> {
    let fence = Fence::new("asked")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let ask = || -> Result<Condition> { Fences::open(&Paths::default())?.condition(fence.name()) };
    assert_eq!(ask()?, Condition::Running);
    shell.ask("true")?;
    shell.kill_supervisor()?;
    // An asker of former days, at the very moment.
    let _asks = lock(&remains::cgroup(fence.name())?)?;
    let ps = to_end({
        let mut ps = Command::new(qfence()?);
        ps.args(["ps", "--json"]);
        ps
    })?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ps.stdout)?;
    let row = rows.iter().find(|row| row["name"] == fence.name());
    assert_eq!(row.context("listed")?["state"], "orphaned");
    thread::scope(|scope| {
        let asking = || {
            (0..200).try_for_each(|_| {
                let condition = ask()?;
                ensure!(condition == Condition::Orphaned, "{condition:?}");
                Ok(())
            })
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(asking)).collect();
        all.into_iter().try_for_each(|asked| {
            asked
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

#[test]
fn a_signal_ends_the_wait_for_who_reads_a_log() -> Result<()> {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let dir = tempfile::tempdir()?;
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU)?;
        let target = fifo.display().to_string();
        let fence = Fence::new("fifo")?.with(&["--user", "nobody", "--log", &target]);
        let (mut process, said) = start(fenced(&fence, &["true"]))?;
        wait_until("it is said what is waited for", || {
            Ok(said().contains(&target))
        })?;
        ensure_ends_by(signal, &mut process, &said)?;
        remains::ensure_none(fence.name())?;

        // The control: with somebody who reads it goes on.
        let (mut process, said) = start(fenced(&fence, &["true"]))?;
        let mut log = String::new();
        File::open(&fifo)?.read_to_string(&mut log)?;
        assert_eq!(ends(&mut process, &said)?, 0, "{}", said());
    }
    Ok(())
}

/// Sends a signal, which ends the process.
fn ensure_ends_by(signal: Signal, process: &mut Process, said: &impl Fn() -> String) -> Result<()> {
    process.signal(signal)?;
    let code = ends(process, said)?;
    assert_eq!(code, 128 + signal as i32, "{}", said());
    Ok(())
}

fn exec(host: &Private, words: &[&str]) -> Result<Command> {
    let mut command = host.qfence()?;
    command.args([
        "exec", "--name", "waits", "--user", "nobody", "--log", "none", "--",
    ]);
    without_sudo(command.args(words));
    Ok(command)
}

#[test]
fn a_signal_ends_the_wait_for_the_lock_on_all_fences() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let host = Private::new()?;
        let registry = host.cgroup().join("qfence");
        assert_eq!(to_end(exec(&host, &["true"])?)?.code(), Some(0));
        let locked = lock(&registry)?;
        let (mut process, said) = start(exec(&host, &["true"])?)?;
        let holder = format!("which process {} (", std::process::id());
        wait_until("it is said who has the lock", || {
            Ok(said().contains(&holder))
        })?;
        ensure_ends_by(signal, &mut process, &said)?;
        assert!(host.left()?.is_empty(), "{:?}", host.left()?);
        drop(locked);
        assert_eq!(to_end(exec(&host, &["true"])?)?.code(), Some(0));
    }
    Ok(())
}

/// The command has ended, and its fence is to be removed.
#[test]
fn a_signal_ends_the_wait_for_the_lock_at_the_end() -> Result<()> {
    let host = Private::new()?;
    let mut shell = Shell::start(exec(&host, &["sh"])?)?;
    shell.ask("true")?;
    let locked = lock(&host.cgroup().join("qfence"))?;
    shell.tell("exit 5")?;
    wait_until("it is said who has the lock", || {
        Ok(shell.stderr().contains("waiting for the lock"))
    })?;
    shell.signal(Signal::SIGTERM)?;
    assert_eq!(shell.wait_for_code()?, 5, "{}", shell.stderr());
    drop(locked);
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    Ok(())
}
