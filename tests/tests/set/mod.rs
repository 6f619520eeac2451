//! The policy of a fence is changed while it runs.

mod concurrent;
mod followed;
mod rules;

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::ProbeResult,
    run::{Ended, to_end},
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;
const OTHER: u16 = 8081;

/// A host and an internet with services, and a shell in a fence.
struct Scene {
    world: World,
    fence: Fence,
    inside: Shell,
    _services: Vec<Listeners>,
}

impl Scene {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        Self::on(world, label, options)
    }

    fn on(world: World, label: &str, options: &[&str]) -> Result<Self> {
        let mut services = Vec::new();
        for port in [PORT, OTHER] {
            services.push(Listeners::everywhere(&world.host, port)?);
            services.push(Listeners::everywhere(&world.internet, port)?);
        }
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let inside = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            world,
            fence,
            inside,
            _services: services,
        })
    }

    fn set(&self, options: &[&str]) -> Result<Ended> {
        let mut command = self.world.host.command(qfence()?);
        command.args(["set", self.fence.name()]).args(options);
        to_end(command)
    }

    /// Whether `ps` says that nothing is refused.
    fn listed_as_monitored(&self) -> Result<Option<bool>> {
        let mut command = self.world.host.command(qfence()?);
        command.args(["ps", "--json"]);
        let fences: serde_json::Value = serde_json::from_str(&to_end(command)?.stdout)?;
        let all = fences.as_array().context("a list")?;
        let own = all.iter().find(|fence| fence["name"] == self.fence.name());
        Ok(own.context("the fence is listed")?["monitor"].as_bool())
    }

    /// Changes the policy, which must work without a word.
    fn change(&self, options: &[&str]) -> Result<()> {
        let ended = self.set(options)?;
        assert_eq!(ended.code(), Some(0), "{options:?}: {ended:?}");
        assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""), "{options:?}");
        Ok(())
    }

    fn attempt(
        &mut self,
        way: &str,
        address: impl std::fmt::Display,
        port: u16,
    ) -> Result<ProbeResult> {
        let attempt = format!("{way}/{address}/{port}");
        let outcomes = self.inside.attempt(&["--timeout-ms", "1000", &attempt])?;
        outcomes.into_iter().next().context("one outcome")
    }

    /// Makes sure that TCP and UDP alike reach a port, or are refused.
    #[track_caller]
    fn assert_all(
        &mut self,
        reached: bool,
        targets: &[(&dyn std::fmt::Display, u16)],
    ) -> Result<()> {
        for (address, port) in targets {
            for way in ["tcp", "udp"] {
                let outcome = self.attempt(way, address, *port)?;
                let as_it_should = if reached {
                    outcome.is_reached()
                } else {
                    outcome.failed_with("ECONNREFUSED")
                };
                assert!(as_it_should, "{outcome:?}");
            }
        }
        Ok(())
    }
}

/// An address in a rule; IPv6 stands in brackets.
fn rule(protocol: &str, address: std::net::IpAddr, port: u16) -> String {
    format!("{protocol}{}", std::net::SocketAddr::new(address, port))
}
