//! The set `self`: listeners that were made in the fence are reached by a rule that allows it, and nothing of the host's.

mod race;
mod reached;
mod told;

use anyhow::Result;
use tests::{fence::Fence, probe, shell::Shell, world::World};

/// The port of the service in the fence, and that of the host's.
const INSIDE: u16 = 5000;
const HOST: u16 = 8080;

fn nobody(label: &str, rules: &[&str]) -> Result<Fence> {
    let fence = Fence::new(label)?.with(&["--user", "nobody"]);
    let allow = |fence: Fence, rule: &&str| fence.with(&["--allow", rule]);
    Ok(rules.iter().fold(fence, allow))
}

/// A shell in a fence with these services.
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
