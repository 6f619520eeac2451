//! A private host that is connected only to a private internet, with a web server on each.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use ::tests::{listener::Listener, namespace::Namespace, private::Private};
use anyhow::{Context as _, Result};
use qfence_user::verify::internet::connect;

/// The port of the web servers on the host and on the internet.
pub(super) const PORT: u16 = 8080;

/// The number of columns of a terminal: enough for a record line with large numbers.
pub(super) const COLUMNS: u16 = 116;

/// The two hosts. The servers end with it, and then the private host with its fences.
pub(super) struct Stage {
    _of_the_host: Listener,
    _of_the_internet: Listener,
    _internet: Namespace,
    private: Private,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let private = Private::new()
            .context("making a private host (in a container, it must be a privileged one)")?;
        let host = private.namespace();
        let internet = Namespace::new()?;
        connect(host.as_ref(), internet.as_ref(), false)?;
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        Ok(Self {
            _of_the_host: Listener::http(host, everywhere)?,
            _of_the_internet: Listener::http(&internet, everywhere)?,
            _internet: internet,
            private,
        })
    }

    /// The host with the fences.
    pub(super) fn host(&self) -> &Namespace {
        self.private.namespace()
    }
}

/// A command that finds `program` by its name, and whose numbers and messages are in English.
pub(super) fn with_path(mut command: Command, program: &Path) -> Result<Command> {
    let directory = program.parent().context("the program has no directory")?;
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [directory.to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    command.env("PATH", env::join_paths(dirs)?);
    command.env("LC_ALL", "C.UTF-8");
    Ok(command)
}
