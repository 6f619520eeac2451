//! Detaches the programs of an ended fence from its network devices.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{HOOKS, unpin};
use crate::base::files::entries;

/// Detaches all devices whose links are pinned in `pins`. Every step is tried. A directory that does not exist has none.
///
/// # Errors
/// The first error, if one cannot be detached.
pub fn detach_all(pins: &Path) -> Result<()> {
    let context = || format!("cannot read {}", pins.display());
    let mut result = Ok(());
    for entry in entries(pins).with_context(context)? {
        let name = entry.file_name();
        let is_of_device = name.to_str().is_some_and(|name| {
            let parts = name.rsplit_once('-');
            parts.is_some_and(|(hook, index)| {
                HOOKS.iter().any(|of| of.name() == hook) && index.parse::<u32>().is_ok()
            })
        });
        if is_of_device {
            let detached = unpin(&entry.path());
            if result.is_ok() {
                result = detached;
            }
        }
    }
    result
}
