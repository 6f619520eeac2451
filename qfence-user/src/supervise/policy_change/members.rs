//! The members of the sets in a changed policy.

use std::collections::BTreeSet;

use anyhow::{Context as _, Error, Result};

use super::surroundings::{Facts, Surroundings};
use crate::{
    base::console::notify,
    host::devices::Devices,
    policy::{Policy, Prefix, Sets, hostset::single, set::SetName},
    stored_policy::StoredPolicy,
};

/// The members of the sets by new facts, for a fence without a supervisor. The workload's part stays as it was at the start,
/// and so do translators, if no nameserver denies them.
pub(super) fn sets_of(facts: Facts, before: &StoredPolicy, policy: &Policy) -> Result<Sets> {
    let Facts { here, devices } = facts;
    let mut sets = here.sets(before.sets.nat64.clone());
    if let Some(workload) = &before.workload {
        workload.add_to(&mut sets);
    }
    sets.nameservers = match (own_nameservers(before), here.nameservers) {
        (Some(own), _) => own,
        (None, Ok(found)) => found.admitted(&here.addresses.links).0,
        (None, Err(error)) if begins_dns(before, policy) => return Err(error.into()),
        (None, Err(error)) => {
            // If the nameservers cannot be read, the addresses are updated anyway.
            if policy.names_dns() {
                let error = Error::from(error);
                notify(format_args!(
                    "warning: {error:#}: from now on there is no exception for nameservers"
                ));
            }
            BTreeSet::new()
        }
    };
    add_gateways(&mut sets, policy, &devices, &before.devices);
    Ok(sets)
}

/// Adds the members of sets that a policy names, and the one before did not: nobody follows them yet. A supervisor starts to
/// when it reads the new policy.
pub(super) async fn add_begun(
    sets: &mut Sets,
    before: &StoredPolicy,
    policy: &Policy,
    surroundings: &Surroundings,
    name: &str,
) -> Result<()> {
    let begins_gateways = policy.names(SetName::Gateway) && !before.policy.names(SetName::Gateway);
    let mut begins_dns = begins_dns(before, policy);
    if let Some(own) = own_nameservers(before).filter(|_| begins_dns) {
        sets.nameservers = own;
        begins_dns = false;
    }
    if !begins_gateways && !begins_dns {
        return Ok(());
    }
    let Facts { here, devices } = surroundings.read(false).await?.with_context(|| {
        format!(
            "the members of the set {} are not known here: no process runs that shares the network namespace of the fence \
             {name}. Name addresses instead",
            if begins_dns { SetName::Dns } else { SetName::Gateway }
        )
    })?;
    if begins_gateways {
        sets.gateways = here.gateways;
    }
    if begins_dns {
        sets.nameservers = here.nameservers?.admitted(&here.addresses.links).0;
        add_gateways(sets, policy, &devices, &before.devices);
    }
    Ok(())
}

/// Whether a policy names nameservers, and the one before did not.
fn begins_dns(before: &StoredPolicy, policy: &Policy) -> bool {
    policy.names_dns() && !before.policy.names_dns()
}

/// The nameservers of the workload to which the fence is attached, if they are not the host's.
fn own_nameservers(before: &StoredPolicy) -> Option<BTreeSet<Prefix>> {
    before.workload.as_ref()?.nameservers.clone()
}

/// Adds the host's addresses in the networks of the fence's devices to the nameservers, if the policy names these.
fn add_gateways(sets: &mut Sets, policy: &Policy, devices: &Devices, names: &[String]) {
    if policy.names_dns() {
        let gateways = devices.gateways_of(names);
        sets.nameservers.extend(gateways.into_iter().map(single));
    }
}
