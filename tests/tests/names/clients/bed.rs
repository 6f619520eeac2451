//! A place with two shells: one in a fence with a rule for a zone, and one without.

use std::process::Command;

use anyhow::{Context as _, Result};
use tests::{fence::Fence, shell::Shell};

use super::{
    super::{PORT, locked},
    place::{Host, OnHost, Place},
    table::Client,
};

/// The zone whose names the fence allows, and one that it does not.
pub(in super::super) const ALLOWED: &str = "example.org";
pub(in super::super) const OTHER: &str = "other.example";

/// The outcome of a client.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) is_success: bool,
    #[expect(dead_code, reason = "for messages")]
    output: Vec<String>,
}

pub(super) struct Bed {
    pub(super) place: Place,
    open: Shell,
    fenced: Shell,
    _fence: Fence,
}

impl Bed {
    /// Makes one whose host has a resolv.conf.
    pub(super) fn new(resolv_conf: &str) -> Result<Self> {
        let place = Place::new(OnHost::Nameserver)?;
        place.world.write_resolv_conf(resolv_conf)?;
        Self::at(place)
    }

    /// Starts the shells at a place.
    pub(super) fn at(place: Place) -> Result<Self> {
        let fence = locked("clients", &[&rule()])?;
        let host = &place.world.host;
        let mut open = host.command("setpriv");
        open.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh"]);
        Ok(Self {
            open: shell(open)?,
            fenced: shell(fence.command(host, "sh"))?,
            _fence: fence,
            place,
        })
    }

    /// Runs a client without a fence.
    pub(super) fn open(&mut self, client: &Client, host: &Host) -> Result<Outcome> {
        run(&mut self.open, &self.place.line(client, host))
    }

    /// Runs a client in the fence.
    pub(super) fn fenced(&mut self, client: &Client, host: &Host) -> Result<Outcome> {
        run(&mut self.fenced, &self.place.line(client, host))
    }
}

/// The rule of the fences.
pub(in super::super) fn rule() -> String {
    format!("tcp:*.{ALLOWED}:{PORT}")
}

/// Without variables about proxies and other habits of the caller.
fn shell(mut command: Command) -> Result<Shell> {
    command.env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Shell::start(command)
}

fn run(shell: &mut Shell, line: &str) -> Result<Outcome> {
    let line = format!("({line}) </dev/null 2>&1; status=$?; echo; echo $status");
    let mut output = shell.ask(&line)?;
    let status = output.pop().context("no status")?;
    Ok(Outcome {
        is_success: status == "0",
        output,
    })
}
