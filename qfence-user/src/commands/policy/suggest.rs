//! `policy suggest`: drafts a profile that allows the destinations seen in monitor mode.

use anyhow::Result;

use super::super::{print, require_root};
use crate::{
    base::{console::notify, paths::Paths},
    fence::registry::Fences,
    kernel::Maps,
    policy::suggest::suggest,
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
    print(suggest(name, policy.as_ref(), &seen, counts.unlisted).trim_end())
}
