//! `session`: makes docs/session.svg, README's picture of a session, from real terminals.

mod picture;
mod play;

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result};
use picture::Window;

use crate::{
    apt,
    build::{self, Profile},
    packages, report, setup, shell, workspace,
};

/// Sets up, builds, plays the session as root, and writes the picture.
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
    let program = build::build(Profile::Quick)?;
    report::heading("session");
    let picture = if shell::is_root() {
        play(&program)?
    } else {
        let xtask = env::current_exe().context("finding xtask's own program")?;
        shell::output(shell::as_root(xtask).args(["session", "--built"]))?
    };
    // Not as root: the checkout belongs to the caller.
    let path = workspace::root().join("docs/session.svg");
    fs::write(&path, picture).with_context(|| format!("writing {}", path.display()))?;
    report::note(&format!("wrote {}", path.display()));
    Ok(())
}

/// Plays the session, and returns the picture.
pub(crate) fn play(program: &Path) -> Result<String> {
    let terminals = play::play(program)?;
    let windows = [
        Window::new("a terminal", terminals.fence.contents()),
        Window::new("meanwhile, another terminal", terminals.host.contents()),
    ];
    Ok(picture::draw(&windows))
}
