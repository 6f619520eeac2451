//! What no program on the cgroup sees, because the kernel does not ask it or because it is no packet, the filter of
//! system calls refuses.

mod filter;
mod keys;
mod options;

use anyhow::Result;
use tests::{
    echoes,
    fence::Fence,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    world::World,
};

/// A host that answers pings to its groups, and a fence on it.
struct Scene {
    world: World,
    fence: Fence,
}

impl Scene {
    fn new(options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        world
            .host
            .sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0")?;
        let fence = Fence::new("calls")?
            .with(&["--user", "nobody"])
            .with(options);
        Ok(Self { world, fence })
    }

    fn inside(&self, attempts: &[String]) -> Result<Vec<ProbeResult>> {
        let mut command = self.fence.command(&self.world.host, probe::program()?);
        probe::run_command(command.args(["--timeout-ms", "500"]).args(attempts))
    }

    fn outside(&self, attempts: &[String]) -> Result<Vec<ProbeResult>> {
        let words = ["--timeout-ms", "500"].into_iter();
        let words: Vec<&str> = words.chain(attempts.iter().map(String::as_str)).collect();
        probe::run_as(NOBODY, &self.world.host, &words)
    }

    /// How many pings the host got in the meantime.
    fn pings(&self, during: impl FnOnce() -> Result<()>) -> Result<u64> {
        let (before, _) = echoes::arrived(&self.world.host)?;
        during()?;
        let (after, _) = echoes::arrived(&self.world.host)?;
        Ok(after - before)
    }
}
