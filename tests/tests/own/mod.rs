//! The set `self`: a rule for it opens the listeners that were made in the fence, and none of the host.

mod changed;
mod race;
mod reached;
mod told;

use anyhow::Result;
use tests::{fence::Fence, probe, shell::Shell, world::World};

/// The ports of the services in the fence and on the host.
const INSIDE: u16 = 5000;
const HOST: u16 = 8080;

fn nobody(label: &str, rules: &[&str]) -> Result<Fence> {
    let fence = Fence::new(label)?.with(&["--user", "nobody"]);
    let allow = |fence: Fence, rule: &&str| fence.with(&["--allow", rule]);
    Ok(rules.iter().fold(fence, allow))
}

/// Starts a shell in a fence, and these services beside it.
fn serve(world: &World, fence: &Fence, services: &str) -> Result<Shell> {
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?;
    shell.tell(&format!("{} --serve {services} &", program.display()))?;
    assert_eq!(shell.next_line()?, "serving");
    Ok(shell)
}

fn stop(mut shell: Shell) -> Result<()> {
    shell.tell("kill $!; exit")
}
