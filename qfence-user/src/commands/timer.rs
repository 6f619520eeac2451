//! `timer` (hidden): takes back rules of a fence whose time is over.

use anyhow::{Context as _, Result};

use super::{require_root, set};
use crate::{
    base::{clock::since_boot, inherited, paths::Paths},
    cli::Timer,
    fence::registry::Fences,
    policy::Policy,
    supervise::{policy_change::change_policy, timer},
};

/// Runs `timer`, until it has taken the rules back, or the fence is gone.
///
/// # Errors
/// If it cannot begin.
pub fn run(options: &Timer, paths: &Paths) -> Result<()> {
    require_root()?;
    inherited::close_all_but(0)?;
    let name = &options.name;
    timer::wait(name, options.until, paths, || take_back(name, paths))
}

/// Publishes the policy without the rules whose time is over, and ends the connections that it denies.
fn take_back(name: &str, paths: &Paths) -> Result<()> {
    let now = since_boot()?;
    let fences = Fences::look(paths)?;
    let stored = fences.policy_file(name).read()?;
    let ends = stored.and_then(|stored| stored.policy.next_end());
    if ends.is_none_or(|until| until > now) {
        return Ok(());
    }
    let make = |policy: &Policy| Ok(policy.without_ended(now)?);
    let mut changed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(change_policy(&fences, paths, name, false, make))?;
    set::end_denied(&fences, paths, name, &mut changed)
}
