//! `session`: draws docs/session.svg, README's picture of a session, from real terminals.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    apt,
    build::{self, Profile},
    packages, report, setup, shell, workspace,
};

/// Sets up, builds, runs the program `session` of the package `tests` as root, and writes the picture that it prints.
pub(crate) fn session() -> Result<()> {
    report::heading("set up");
    setup::setup()?;
    let missing: Vec<_> = packages::missing_for_session()
        .into_iter()
        .map(|package| package.name)
        .collect();
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    report::heading("build");
    let session = build::build_with("session")?;
    report::heading("session");
    let picture = shell::output(shell::as_root(session).arg(build::program(Profile::Quick)))?;
    // The file is not written as root: the checkout belongs to the caller.
    let path = workspace::root().join("docs/session.svg");
    fs::write(&path, picture).with_context(|| format!("writing {}", path.display()))?;
    report::note(&format!("wrote {}", path.display()));
    Ok(())
}
