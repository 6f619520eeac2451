//! `stand-in` (hidden): follows the host for a fence while its supervisor is stopped.

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::require_root;
use crate::{
    base::{inherited, paths::Paths},
    cli::StandIn,
    supervise::stand_in::{self, Orders},
};

/// Runs `stand-in`, until the supervisor that started it continues or ends.
///
/// # Errors
/// If it cannot begin to follow.
pub fn run(options: &StandIn, paths: &Paths) -> Result<()> {
    require_root()?;
    inherited::close_all_but(0)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let orders = Orders {
        fence: options.name.as_str().into(),
        command: Pid::from_raw(options.command),
        on_damage: options.on_damage,
        parts: options.parts.clone(),
        resolv_conf: options.resolv_conf.clone(),
    };
    runtime.block_on(stand_in::follow(orders, paths))
}
