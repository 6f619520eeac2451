//! A private host with a nameserver, and a shell there that looks names up as nobody.

use anyhow::{Result, bail};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    probe::{self, Load},
    shell::Shell,
    world::World,
};

/// The nameserver, as the host's resolv.conf has it.
const NAMESERVER: &str = "127.0.0.1";

/// Where names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Outside,
    Fence,
}

impl Place {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Outside => "unfenced",
            Self::Fence => "qfence",
        }
    }
}

/// A host, and who looks names up there.
pub(crate) struct Scene {
    place: Place,
    shell: Shell,
    _fence: Option<Fence>,
    _nameserver: Shell,
    _world: World,
}

impl Scene {
    pub(crate) fn new(place: Place) -> Result<Self> {
        let world = World::new()?;
        world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
        let nameserver = probe::nameserver(&world.host)?;
        let fence = match place {
            Place::Outside => None,
            Place::Fence => Some(Fence::new("names")?.with(&[
                "--user",
                "nobody",
                "--profile",
                "locked",
                "--allow",
                "tcp:*.example.org:443",
            ])),
        };
        let command = match &fence {
            Some(fence) => fence.command(&world.host, "sh"),
            None => world.host.command_as(NOBODY, "sh"),
        };
        Ok(Self {
            place,
            shell: Shell::start(command)?,
            _fence: fence,
            _nameserver: nameserver,
            _world: world,
        })
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    /// Looks names up for some milliseconds.
    pub(crate) fn look_up(&mut self, load: &str, ms: u32) -> Result<Load> {
        let program = probe::program()?;
        let script = format!(
            "{} --for-ms {ms} --load {load}/{NAMESERVER}/53",
            program.display()
        );
        let said = self.shell.ask(&script)?;
        let mut loads: Vec<Load> = probe::read_lines(&said.join("\n"))?;
        match loads.pop() {
            Some(load) => Ok(load),
            None => bail!("{script}: {said:?}: {}", self.shell.stderr()),
        }
    }
}
