//! `policy suggest`: drafts a profile that allows the destinations seen in monitor mode, or only those that were let
//! through.

use anyhow::{Context as _, Result};
use qfence_common::OTHERS;

use super::super::{print, require_root};
use crate::{
    base::{console::notify, paths::Paths},
    fence::registry::Fences,
    kernel::Maps,
    policy::suggest::{suggest, suggest_allowed},
};

/// Runs `policy suggest`.
///
/// # Errors
/// If the fence does not exist or cannot be read, or standard output cannot be written.
pub(super) fn run(name: &str, paths: &Paths) -> Result<()> {
    require_root()?;
    let fences = Fences::look(paths)?;
    fences.condition(name)?;
    let maps = Maps::open(&fences.pins(name))?;
    let seen = maps.sightings()?;
    let counts = maps.counts()?;
    if seen.is_empty() {
        notify(format_args!(
            "nothing was seen: {}",
            if counts.monitored == 0 {
                "the fence has not allowed anything in monitor mode (`exec --monitor`, or `set \
                 NAME --monitor`) that its policy denies"
            } else {
                "the attempts in monitor mode had no destinations"
            }
        ));
    }
    let policy = fences.policy_file(name).read()?.map(|stored| stored.policy);
    let names = fences.names_file(name).read()?.names;
    print(suggest(name, policy.as_ref(), &seen, counts.unlisted, &names).trim_end())
}

/// Runs `policy suggest --allowed`.
///
/// # Errors
/// If the fence does not exist, cannot be read or does not log what is let through, or standard output cannot be
/// written.
pub(super) fn run_allowed(name: &str, paths: &Paths) -> Result<()> {
    require_root()?;
    let fences = Fences::look(paths)?;
    fences.condition(name)?;
    let flows = Maps::open(&fences.pins(name))?.flows()?;
    let flows = flows.with_context(|| {
        format!(
            "the fence {name} does not log what it lets through: start it with `exec --log-allowed`"
        )
    })?;
    let calls_to_others = flows
        .iter()
        .find(|(key, _)| *key == OTHERS)
        .map_or(0, |(_, others)| others.calls.max(others.sent_packets));
    // A ping has packets and no call.
    let seen: Vec<_> = flows
        .iter()
        .filter(|(key, _)| *key != OTHERS)
        .map(|(key, flow)| (*key, flow.calls.max(1)))
        .collect();
    if seen.is_empty() {
        notify("nothing was let through so far");
    }
    let names = fences.names_file(name).read()?.names;
    print(suggest_allowed(name, &seen, calls_to_others, &names).trim_end())
}
