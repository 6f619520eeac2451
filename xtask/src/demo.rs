//! `demo`: the same guest twice, without and with a fence, and what it reached each time.

mod guests;
mod outcome;

use std::{env, os::unix::process::CommandExt as _, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    build::{self, Profile},
    report, setup, shell,
};

/// Sets up, builds, and compares.
pub(crate) fn demo() -> Result<()> {
    if !shell::is_root() {
        // Asks for the password now, not when whoever started this has gone for a coffee.
        report::note("the demo makes network namespaces and loads eBPF programs, as root by sudo");
        shell::run(shell::program("sudo").arg("--validate")).context(
            "there is no becoming root here: run `cargo xtask demo` as a user who may use sudo, \
             or as root",
        )?;
    }
    report::heading("set up");
    setup::setup()?;
    report::heading("build");
    let program = build::build(Profile::Quick)?;
    report::heading("demo");
    if shell::is_root() {
        return compare(&program);
    }
    let xtask = env::current_exe().context("finding xtask's own program")?;
    let mut command = shell::as_root(xtask);
    let error = command.args(["demo", "--built"]).exec();
    Err(error).with_context(|| format!("starting {}", shell::describe(&command)))
}

/// Boots the guests and shows what came of it; an error if that is not what qfence promises.
pub(crate) fn compare(program: &Path) -> Result<()> {
    let comparison = guests::compare(program)?;
    report::result(&format!("\n{comparison}"))?;
    if !comparison.is_as_promised() {
        bail!("the demo did not go as it should: see the verdict above");
    }
    Ok(())
}
