//! `policy suggest`: drafts a profile that allows the destinations seen in monitor mode, or only those that were let
//! through.

use anyhow::{Context as _, Result};
use qfence_common::OTHERS;

use super::super::{named::found, print, require_root};
use crate::{
    base::{console::notify, paths::Paths},
    fence::registry::Fences,
    kernel::Maps,
    policy::{
        guard::Guard,
        suggest::{Found, Unlisted, suggest, suggest_allowed},
    },
    stored_policy::{StoredPolicy, resolved_names::StoredNames},
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
    let resolved = Resolved::of(&fences, name)?;
    let policy = resolved.stored.as_ref().map(|stored| &stored.policy);
    let found = resolved.found();
    print(suggest(name, policy, &seen, counts.unlisted, found.as_ref()).trim_end())
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
    let maps = Maps::open(&fences.pins(name))?;
    let flows = maps.flows()?;
    let flows = flows.with_context(|| {
        format!(
            "the fence {name} does not log what it lets through: start it with `exec --log-allowed`"
        )
    })?;
    let others = flows.iter().find(|(key, _)| *key == OTHERS);
    let unlisted = Unlisted {
        others: others.map_or(0, |(_, others)| others.calls.max(others.sent_packets)),
        forgotten: maps.forgotten()?,
    };
    // A ping has packets and no call. A destination that several cgroups have reached is there several times.
    let seen: Vec<_> = flows
        .iter()
        .filter(|(key, _)| *key != OTHERS)
        .map(|(key, flow)| (key.to, flow.calls.max(1)))
        .collect();
    if seen.is_empty() {
        notify("nothing was let through so far");
    }
    let resolved = Resolved::of(&fences, name)?;
    let found = resolved.found();
    print(suggest_allowed(name, &seen, unlisted, found.as_ref()).trim_end())
}

/// What the resolver of a fence has found, and the stored policy, which has the members of sets.
struct Resolved {
    stored: Option<StoredPolicy>,
    names: Option<StoredNames>,
}

impl Resolved {
    fn of(fences: &Fences, name: &str) -> Result<Self> {
        Ok(Self {
            stored: fences.policy_file(name).read()?,
            names: found(fences, name)?,
        })
    }

    fn found(&self) -> Option<Found<'_>> {
        let (stored, names) = (self.stored.as_ref()?, self.names.as_ref()?);
        Some(Found {
            guard: Guard::new(&stored.sets, names.allows_private),
            names: &names.names,
        })
    }
}
