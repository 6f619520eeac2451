//! Takes addresses of names out of force that a new policy no longer grants.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::policy_change::takes_back;
use crate::{
    base::console::notify,
    compile::named::Lookups,
    fence::registry::Fences,
    kernel::resolved::Addresses,
    policy::{Numbered, Policy},
    stored_policy::{
        StoredPolicy,
        resolved_names::{NamesFile, StoredNames},
    },
};

/// How long to wait for the supervisor, which adopts another policy once per second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two looks at what it has adopted.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes back what a new policy, which is in force, no longer grants. Returns what the resolver has found.
///
/// # Errors
/// If the files of the fence or its maps cannot be read or written.
pub(super) async fn after_change(
    fences: &Fences,
    name: &str,
    before: &Policy,
    stored: &StoredPolicy,
    has_supervisor: bool,
) -> Result<StoredNames> {
    let StoredPolicy {
        policy, generation, ..
    } = stored;
    if !before.has_names() && !policy.has_names() {
        return Ok(StoredNames::default());
    }
    let file = fences.names_file(name);
    // An earlier change may have left some: without a supervisor, or if that has not adopted the policy before this one and the
    // process that made the change was ended meanwhile.
    let is_behind = || Ok::<_, anyhow::Error>(file.read()?.generation + 1 < *generation);
    let must = !has_supervisor || takes_back(before, policy) || is_behind()?;
    if must && !(has_supervisor && is_adopted(&file, *generation).await?) {
        let policy_file = fences.policy_file(name);
        // Since this process published its policy, another one may have published the next. So the current one counts, and the
        // lock keeps it current until all is taken back.
        let _lock = policy_file.lock()?;
        let current = policy_file.read()?.context("the fence has no policy")?;
        let mut resolved = Addresses::open(&fences.pins(name))?;
        take_back(&mut resolved, &file.read()?, &current.policy.rules())?;
    }
    if !has_supervisor && policy.has_names() {
        notify(format_args!(
            "warning: the fence {name} has no supervisor, so no name is looked up any more: rules by name only allow the \
             addresses that are in force, until their time is over"
        ));
    }
    file.read()
}

/// Waits until the supervisor has adopted the policy with this number, or a later one: then it has taken back what that does
/// not grant, and puts nothing else in force. Returns false if it has not within some seconds.
///
/// # Errors
/// If the file of names cannot be read.
async fn is_adopted(file: &NamesFile, generation: u64) -> Result<bool> {
    let begin = Instant::now();
    while file.read()?.generation < generation {
        if begin.elapsed() > PATIENCE {
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
    Ok(true)
}

/// Takes out of force what no rule grants to a name of an address, without the help of a supervisor. An address whose names
/// are not stored yet, because it was looked up a moment ago, is granted nothing.
///
/// # Errors
/// If the map cannot be read or written.
fn take_back(resolved: &mut Addresses, found: &StoredNames, rules: &[Numbered]) -> Result<()> {
    let lookups = Lookups::new(rules);
    resolved.retain(|address, grant| {
        let names = found.names.get(&address).into_iter().flatten();
        lookups.grants(names.map(String::as_str), grant)
    })
}
