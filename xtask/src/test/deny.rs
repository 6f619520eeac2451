//! What the project depends on: licences, bans and sources, by `deny.toml`. Not the advisories: their database is in a Git
//! repository, which cargo-deny fetches anew; what CI says of a commit would depend on the day, and on a network.

use anyhow::Result;

use crate::{shell, tools};

const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks the workspace.
pub(super) fn deny() -> Result<()> {
    let mut deny = shell::in_workspace(tools::DENY.program()?);
    deny.env("CARGO", shell::host_cargo());
    shell::run(deny.args(["--locked", "check"]).args(CHECKS))
}
