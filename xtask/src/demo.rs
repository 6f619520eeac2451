//! `demo`: the same guest twice, without and with a fence, and what it reached each time.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    report, setup, shell,
};

/// Sets up, builds, and becomes the program of the package `tests` that boots the guests and compares, as root.
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
    let demo = build::build_with("demo")?;
    report::heading("demo");
    let mut command = shell::as_root(demo);
    let error = command.arg(build::program(Profile::Quick)).exec();
    Err(error).with_context(|| format!("starting {}", shell::describe(&command)))
}
