//! The record continues after the supervisor was killed, and after its file was moved away.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tests::{fence::Fence, probe, run::wait_until, shell::Shell, world::World};

use super::{count, destinations, floods_of, logs, refused};

#[test]
fn a_record_goes_on_where_a_killed_supervisor_stopped() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 100)?;
    let fence = Fence::new("continued")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let probe = probe::program()?.display().to_string();
    shell.tell(&format!(
        "{probe} --for-ms 6000 --connect-each {file}; echo done"
    ))?;
    // The flood still runs.
    wait_until("the record has begun", || Ok(fence.refusals()?.len() > 70))?;
    shell.kill_supervisor()?;
    let (before, _) = logs(fence.name())?;
    let all = refused(&floods_of(&mut shell, || Ok(()))?);
    let (after, said) = logs(fence.name())?;
    assert!(
        after.len() > before.len(),
        "{} lines, then {}",
        before.len(),
        after.len()
    );
    // The lines that were shown before are still there.
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.iter().map(count).sum::<Result<u64>>()?, all);
    assert_eq!(after.last().context("a line")?["total"], all);
    assert!(said.contains(&format!("{all} attempts: ")), "{said}");
    let (again, _) = logs(fence.name())?;
    assert_eq!(again, after);
    Ok(())
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_and_the_command_hears_nothing_of_it() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("rotate")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let moved = fence.log().with_extension("1");
    shell.attempt(&["udp/127.0.0.1/9"])?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    fs::rename(fence.log(), &moved)?;
    shell.signal(Signal::SIGUSR1)?;
    wait_until("the log is begun anew", || {
        shell.attempt(&["udp/127.0.0.1/10"])?;
        Ok(fence.log().exists())
    })?;
    // All refusals of port 10 may be in the moved file.
    shell.attempt(&["udp/127.0.0.1/11"])?;
    fence.await_refusal(|refusal| refusal.port == 11)?;
    // SIGUSR1 would have ended the shell, so it did not get the signal.
    assert_eq!(shell.ask("echo here")?, ["here"]);
    assert!(fs::read_to_string(moved)?.contains(r#""port":9,"#));
    Ok(())
}
