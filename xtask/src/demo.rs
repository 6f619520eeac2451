//! `demo`: boots the same guest without and with a fence, and compares the destinations that it reaches.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use crate::{
    build::{self, Profile},
    report, setup, shell,
};

/// Sets up, builds, and executes the program `demo` of the package `tests`, which boots the guests and compares, as root.
pub(crate) fn demo() -> Result<()> {
    if !shell::is_root() {
        // Asks for the password at once, while the user is still there.
        report::note("the demo makes network namespaces and loads eBPF programs, as root by sudo");
        shell::run(shell::program("sudo").arg("--validate")).context(
            "cannot become root: run `cargo xtask demo` as a user who may use sudo, or as root",
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
