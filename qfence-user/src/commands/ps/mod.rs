//! `ps`: lists the fences.

mod json;
mod table;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;

use self::{json::rows, table::table};
use super::{named::found, print, print_json, require_root};
use crate::{
    base::{console::notify, paths::Paths, printable::printable_words, process::helper::Apart},
    cli::Ps,
    fence::{
        description::{COMMAND, Description},
        hierarchy::PARENT,
        registry::{Condition, Fences, Listed},
    },
    stored_policy::resolved_names::RESULTS,
    workload::added,
};

/// The state of a fence that is being started, as far as it has devices.
const STARTING: &str = "starting";

/// Runs `ps`.
///
/// # Errors
/// If the fences cannot be listed, or standard output cannot be written.
pub fn run(options: &Ps, paths: &Paths) -> Result<()> {
    require_root()?;
    let all = Fences::open(paths)?;
    let registry = all.lock()?;
    let elsewhere = registry.clear(&mut |note| notify(note))?;
    let mut fences = registry.list(elsewhere)?;
    drop(registry);
    let mut apart = Apart::new(&paths.proc);
    let of_pods: Vec<_> = fences
        .iter()
        .map(|fence| of_pod(fence, &fences, paths))
        .collect();
    for (fence, of_pod) in fences.iter_mut().zip(of_pods) {
        let Some(description) = &fence.description else {
            continue;
        };
        let added = added::unjudged(description, &fence.pids, &mut apart, paths);
        fence.unfenced.extend(added);
        fence.unfenced.extend(of_pod);
    }
    let lookups = lookups(&all, &fences);
    if options.json {
        print_json(&rows(&fences, &lookups))?;
    } else {
        print(&table(&fences, &lookups))?;
    }
    for Listed {
        name, condition, ..
    } in &fences
    {
        match condition {
            Condition::Elsewhere => notify(format_args!(
                "the fence {name} is in another part of the cgroup tree, which is not visible here, and is not changed. Show \
                 or remove it where it was started"
            )),
            Condition::Incompatible => {
                if let Err(error) = all.check_version(name) {
                    notify(format_args!("{error:#}"));
                }
            }
            Condition::Running
            | Condition::Orphaned
            | Condition::Detached
            | Condition::Unfenced => {}
        }
    }
    Ok(())
}

/// The devices of a container's pod that are not fenced, if they should be.
fn of_pod(fence: &Listed, all: &[Listed], paths: &Paths) -> Vec<(String, String)> {
    let wired = fence.description.as_ref().and_then(|found| found.wired);
    let unfenced = wired.map(|wired| wired.unfenced(&fence.pids, all, &paths.proc));
    unfenced.unwrap_or_default()
}

/// The look-ups of fences with a resolver, by the name of the fence.
type Lookups<'a> = BTreeMap<&'a str, [u64; RESULTS.len()]>;

/// The look-ups of fences. Those that cannot be read are reported.
fn lookups<'a>(all: &Fences, fences: &'a [Listed]) -> Lookups<'a> {
    let mut lookups = Lookups::new();
    for Listed { name, counted, .. } in fences {
        // Of a fence whose maps cannot be read, no count is shown.
        let Some(_counted) = counted else {
            continue;
        };
        match found(all, name) {
            Ok(Some(found)) => {
                lookups.insert(name, found.lookups);
            }
            Ok(None) => {}
            Err(error) => notify(format_args!(
                "warning: the look-ups of the fence {name} are not counted: {error:#}"
            )),
        }
    }
    lookups
}

/// The path of a fence's cgroup, if it is not among those of all fences, where it has the name of its fence.
fn place(fence: &Listed) -> Option<PathBuf> {
    let description = fence.description.as_ref()?;
    match (&description.attached, &description.beneath) {
        (Some(attached), _) => Some(attached.cgroup.clone()),
        (None, Some(path)) => Some(path.join(PARENT).join(&fence.name)),
        (None, None) => None,
    }
}

/// The command of a fence. An earlier version stored it completely.
fn command(description: &Description) -> Vec<String> {
    let words = description.command.iter().map(String::as_bytes);
    printable_words(words, COMMAND)
}
