//! What a policy allowed and does not any more: no socket keeps it.

mod broadcasts;
mod ended;
mod replies;

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    probe::ProbeResult,
    run::{Ended, to_end},
    shell::Shell,
    world::World,
};

/// A service of the host's.
const PORT: u16 = 8080;

fn set(world: &World, fence: &Fence, options: &[&str]) -> Result<Ended> {
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name()]).args(options);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{options:?}: {ended:?}");
    Ok(ended)
}

fn ask(shell: &mut Shell, attempt: &str) -> Result<ProbeResult> {
    let outcomes = shell.attempt(&["--timeout-ms", "500", attempt])?;
    outcomes.into_iter().next().context("one outcome")
}
