//! `dead-man` (hidden): ends everything in a fence when its supervisor has ended.

use anyhow::Result;

use super::require_root;
use crate::{
    base::{inherited, paths::Paths},
    supervise::dead_man,
};

/// Runs `dead-man`, until the supervisor that started it has ended.
///
/// # Errors
/// If it cannot begin, or processes in the fence do not end.
pub fn run(name: &str, paths: &Paths) -> Result<()> {
    require_root()?;
    inherited::close_all_but(0)?;
    dead_man::watch(name, paths)
}
