//! How long it takes until a command runs, and from its end to that of what started it.

use std::{
    env,
    io::{Read as _, Write as _, stdout},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use tests::{bench::Series, fence::qfence, world::World};

/// The word that makes this program the command: it prints the time, and ends.
pub(crate) const CLOCK: &str = "--clock";

/// Starts a command, plainly and in a fence, and looks when it ran.
pub(crate) fn measure(rounds: usize) -> Result<[Series; 2]> {
    let world = World::new()?;
    let (program, qfence) = (env::current_exe()?, qfence()?);
    let mut runs = Series::new("until the command runs", "ms");
    let mut ends = Series::new("from its end to its starter's knowing", "ms");
    for _ in 0..rounds {
        let plain = world.host.command(&program);
        let mut fenced = world.host.command(&qfence);
        fenced
            .args(["exec", "--user", "nobody", "--"])
            .arg(&program);
        for (variant, command) in [("plain spawn", plain), ("qfence-user exec", fenced)] {
            let (before, at, after) = times(command).context(variant)?;
            runs.push(variant, (at - before).as_secs_f64() * 1000.0);
            ends.push(variant, (after - at).as_secs_f64() * 1000.0);
        }
    }
    Ok([runs, ends])
}

/// When a command was started, when it ran, and when what was started had ended.
fn times(mut command: Command) -> Result<(Duration, Duration, Duration)> {
    command.arg(CLOCK).stdin(Stdio::null());
    let before = now()?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let status = child.wait()?;
    let after = now()?;
    ensure!(status.success(), "{status}");
    let mut at = String::new();
    let stdout = child.stdout.as_mut().context("a piped stdout")?;
    stdout.read_to_string(&mut at)?;
    let at = at.trim().parse().context("the command says no time")?;
    Ok((before, Duration::from_nanos(at), after))
}

/// The command: its first deed is its last.
pub(crate) fn tell() -> ExitCode {
    let told = now().and_then(|at| Ok(writeln!(stdout(), "{}", at.as_nanos())?));
    told.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// The time since the machine started, the same in all processes.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}
