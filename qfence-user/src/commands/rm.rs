//! `rm`: ends what runs in fences, and removes them.

use std::time::Duration;

use anyhow::Result;

use super::require_root;
use crate::{
    base::{console::notify, exit::FAILED, paths::Paths},
    cli::Rm,
    fence::registry::Fences,
};

/// Runs `rm`; returns the exit status. Every fence named is tried.
///
/// # Errors
/// If there is no place for fences on this host.
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
