//! What the resolver of a fence has found: names, look-ups, and the addresses that rules by name allow now.

use anyhow::Result;

use crate::{
    base::clock::since_boot,
    compile::explain::{NamedAddress, NamedAddresses},
    fence::registry::Fences,
    kernel::{has_resolver, resolved::Addresses},
    policy::domain::DomainName,
    stored_policy::resolved_names::StoredNames,
};

/// What the resolver of the fence `name` has found; `None` if it has none.
///
/// # Errors
/// If the map or the file of names cannot be read.
pub(super) fn found(fences: &Fences, name: &str) -> Result<Option<StoredNames>> {
    match has_resolver(&fences.pins(name))? {
        true => fences.names_file(name).read().map(Some),
        false => Ok(None),
    }
}

/// The addresses that the rules by name of the fence `name` allow now.
///
/// # Errors
/// If the map or the file of names cannot be read.
pub(super) fn named_addresses(fences: &Fences, name: &str) -> Result<NamedAddresses> {
    let now = since_boot()?;
    let mut names = fences.names_file(name).read()?.names;
    let addresses = Addresses::open(&fences.pins(name))?.list()?;
    let in_force = addresses.into_iter().filter(|(_, of)| !of.is_over(now));
    let found = in_force.map(|(address, of)| {
        let texts = names.remove(&address).unwrap_or_default();
        let names = texts
            .iter()
            .filter_map(|text| DomainName::of_wire(text).ok());
        let left = of.expires_ns.min(of.until_ns).saturating_sub(now);
        let named = NamedAddress {
            grants: of.grants,
            names: names.collect(),
            seconds: left / 1_000_000_000,
        };
        (address, named)
    });
    Ok(found.collect())
}
