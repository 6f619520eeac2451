//! `explain` and `policy` tell what the kernel does.

mod explain;
mod show;
mod suggest;

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use qfence_user::kernel::pins::{Pins, of_maps};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    run::{Ended, to_end},
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;
const OTHER: u16 = 8081;

/// Rules of all kinds, for both families.
const RULES: [&str; 10] = [
    "--allow",
    "tcp:192.0.2.10:8080",
    "--allow",
    "tcp:[2001:db8:1::10]:8080",
    "--deny",
    "udp:192.0.2.1:8080-8081",
    "--deny",
    "udp:[2001:db8:1::1]:8080-8081",
    "--deny",
    "icmp:internet",
];

struct Scene {
    world: World,
    fence: Fence,
    inside: Shell,
    _services: Vec<Listeners>,
}

impl Scene {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
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

    fn ask(&self, words: &[&str]) -> Result<Ended> {
        let mut command = self.world.host.command(qfence()?);
        command.args(words);
        to_end(command)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let ended = self.ask(words)?;
        assert_eq!(ended.code(), Some(0), "{words:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    /// What `explain` says of a call.
    fn verdict(&self, destination: &str) -> Result<Value> {
        let all = self.json(&["explain", self.fence.name(), "--json", destination])?;
        let cases = all[0]["by_address"].as_array().context("cases")?.clone();
        assert_eq!(cases.len(), 1, "{all}");
        Ok(cases[0].clone())
    }
}

/// Whether there is a map in the one slot of a map of the fence.
fn is_filled(fence: &Fence, map: &str) -> Result<bool> {
    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let slot = Map::from_map_data(MapData::from_pin(of_maps(&pins).join(map))?)?;
    match ArrayOfMaps::<_, MapData>::try_from(slot)?.get(&0, 0) {
        Ok(_) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
