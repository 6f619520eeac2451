//! Starts the resolver of the fence.

use anyhow::Result;

use crate::{
    build::Building,
    cli::Exec,
    commands::exec::words::step,
    fence::guard::Fence,
    host::watcher::Watcher,
    record::{
        lookups::{self, LookupReceiver},
        resolved_names::ResolvedNames,
    },
    supervise::names::{Given, Names, Prepared},
};

/// Starts the resolver of the fence. Returns the look-ups for the record, and the resolver. `resolved` gets the names of
/// addresses.
///
/// # Errors
/// If it cannot be started.
pub(super) async fn start(
    options: &Exec,
    prepared: Prepared,
    fence: &Fence,
    building: &mut Building<'_>,
    resolved: &ResolvedNames,
    watcher: &Watcher,
) -> Result<(LookupReceiver, Names)> {
    let (record, lookups) = lookups::channel()?;
    let given = Given {
        pins: fence.pins(),
        askers: building.take_askers()?,
        policy_file: fence.policy_file(),
        names_file: fence.names_file(),
        record,
        names: resolved.clone(),
        logs_allowed: options.log_allowed,
    };
    let names = prepared.start(given, watcher).await?;
    step(
        options,
        format_args!("names are looked up by {}", names.in_words()),
    );
    Ok((lookups, names))
}
