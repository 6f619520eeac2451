//! `timer` (hidden): takes back rules of a fence whose time is over.

use anyhow::{Context as _, Result};

use super::{require_root, set};
use crate::{
    base::{clock::since_boot, inherited, paths::Paths},
    cli::Timer,
    fence::registry::Fences,
    policy::Policy,
    supervise::{
        policy_change::change_policy,
        timer::{self, NotTakenBack},
    },
};

/// Runs `timer`, until it has taken the rules back, or the fence is gone.
///
/// # Errors
/// If it cannot begin.
pub fn run(options: &Timer, paths: &Paths) -> Result<()> {
    require_root()?;
    inherited::close_all_but(0)?;
    let name = &options.name;
    let mut has_begun = false;
    timer::wait(name, options.until, paths, || {
        let taken_back = take_back(name, paths, &mut has_begun);
        taken_back.map_err(|error| match is_due(name, paths) {
            Ok(false) if has_begun => NotTakenBack::Allowed(error),
            _ => NotTakenBack::Rules(error),
        })
    })
}

/// Whether the policy of a fence has rules whose time is over.
fn is_due(name: &str, paths: &Paths) -> Result<bool> {
    let stored = Fences::look(paths)?.policy_file(name).read()?;
    let ends = stored.and_then(|stored| stored.policy.next_end());
    let now = since_boot()?;
    Ok(ends.is_some_and(|until| until <= now))
}

/// Publishes the policy without the rules whose time is over, and ends the connections that it denies. If this has failed
/// after the policy was published, that is published again, so that its connections are ended.
fn take_back(name: &str, paths: &Paths, has_begun: &mut bool) -> Result<()> {
    if !*has_begun && !is_due(name, paths)? {
        return Ok(());
    }
    *has_begun = true;
    let now = since_boot()?;
    let fences = Fences::look(paths)?;
    let make = |policy: &Policy| Ok(policy.without_ended(now)?);
    let mut changed = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(change_policy(&fences, paths, name, false, make))?;
    set::end_denied(&fences, paths, name, &mut changed)
}
