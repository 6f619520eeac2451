//! Takes addresses of names out of force that a new policy no longer grants.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use crate::{
    compile::named::Lookups,
    kernel::resolved::Addresses,
    policy::Numbered,
    stored_policy::resolved_names::{NamesFile, StoredNames},
};

/// How long to wait for the supervisor, which adopts another policy once per second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two looks at what it has adopted.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until the supervisor has adopted the policy with this number, or a later one: then it has taken back what that does
/// not grant, and puts nothing else in force. Returns false if it has not within some seconds.
///
/// # Errors
/// If the file of names cannot be read.
pub(super) async fn is_adopted(file: &NamesFile, generation: u64) -> Result<bool> {
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
/// are not known, because it was looked up in the last second, is granted nothing.
///
/// # Errors
/// If the map cannot be read or written.
pub(super) fn take_back(
    resolved: &mut Addresses,
    found: &StoredNames,
    rules: &[Numbered],
) -> Result<()> {
    let lookups = Lookups::new(rules);
    resolved.retain(|address, grant| {
        let names = found.names.get(&address).into_iter().flatten();
        lookups.grants(names.map(String::as_str), grant)
    })
}
