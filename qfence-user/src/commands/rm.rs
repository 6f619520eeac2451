//! `rm`: ends the processes in fences, and removes the fences.

use std::time::Duration;

use anyhow::Result;

use super::require_root;
use crate::{
    base::{console::notify, exit::FAILED, paths::Paths},
    cli::Rm,
    fence::registry::Fences,
};

/// Runs `rm`; returns the exit status. Tries every named fence, even after an error.
///
/// # Errors
/// If this host has no cgroup for fences.
pub fn run(options: &Rm, paths: &Paths) -> Result<u8> {
    require_root()?;
    let fences = Fences::open(paths)?;
    let mut status = 0;
    for name in &options.names {
        let patience = Duration::from_secs(options.time.into());
        if let Err(error) = fences.remove(name, patience, &mut |note| notify(note)) {
            notify(format_args!("error: {error:#}"));
            status = FAILED;
        }
    }
    Ok(status)
}
