//! `session`: draws docs/session.svg, README's picture of a session, and docs/top.svg, from real terminals.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    apt,
    build::{self, Profile},
    packages, report, setup, shell, workspace,
};

/// The pictures in `docs/`.
const PICTURES: [&str; 2] = ["session", "top"];

/// Sets up, builds, runs the program `session` of the package `tests` as root, and writes the pictures that it prints.
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
    for name in PICTURES {
        let mut play = shell::as_root(&session);
        play.arg(build::program(Profile::Quick)).arg(name);
        let picture = shell::output(&mut play)?;
        // The file is not written as root: the checkout belongs to the caller.
        let path = workspace::root().join(format!("docs/{name}.svg"));
        fs::write(&path, picture).with_context(|| format!("writing {}", path.display()))?;
        report::note(&format!("wrote {}", path.display()));
    }
    Ok(())
}
