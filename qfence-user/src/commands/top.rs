//! `top`: a live view of all fences.

use std::time::Duration;

use anyhow::Result;

use super::require_root;
use crate::{base::paths::Paths, cli::Top, fence::registry::Fences, observe::top::screen::show};

/// Runs `top`.
///
/// # Errors
/// If there is no terminal, or the fences cannot be listed.
pub fn run(options: &Top, paths: &Paths) -> Result<()> {
    require_root()?;
    let fences = Fences::look(paths)?;
    show(&fences, Duration::from_secs(options.interval.into()))
}
