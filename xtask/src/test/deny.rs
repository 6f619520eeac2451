//! Checks licences, bans and sources of the dependencies, by `deny.toml`. Advisories are not checked: cargo-deny fetches
//! their database from a Git repository, so the result for one commit would depend on the day, and on a network.

use anyhow::Result;

use crate::{shell, tools};

const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks the workspace.
pub(super) fn deny() -> Result<()> {
    let mut deny = shell::in_workspace(tools::DENY.program()?);
    deny.env("CARGO", shell::host_cargo());
    shell::run(deny.args(["--locked", "check"]).args(CHECKS))
}
