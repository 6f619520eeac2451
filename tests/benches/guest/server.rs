//! The server on the internet.

use anyhow::{Result, ensure};
use tests::{probe, shell::Shell, world::World};

/// Greets whoever connects.
pub(crate) const GREETING: u16 = 7000;
/// Sends back what comes.
pub(crate) const ECHO: u16 = 7001;
/// Takes what comes.
pub(crate) const SINK: u16 = 7002;
/// Sends without end.
pub(crate) const SOURCE: u16 = 7003;

/// A process that ends with this value.
pub(crate) struct Server {
    _shell: Shell,
}

impl Server {
    pub(crate) fn start(world: &World) -> Result<Self> {
        let mut shell = Shell::start(world.internet.command("sh"))?;
        shell.tell(&format!(
            "exec {} --serve tcp/{GREETING} echo-tcp/{ECHO} sink-tcp/{SINK} source-tcp/{SOURCE}",
            probe::program()?.display()
        ))?;
        let said = shell.next_line()?;
        ensure!(said == "serving", "the server says {said:?}");
        Ok(Self { _shell: shell })
    }
}
