//! Programs that look names up, each in its own way: the names of rules resolve and are reached, others neither.

mod answers;
mod bed;
mod place;
mod resolved;
mod reverse;
mod strange;
mod table;

use anyhow::{Context as _, Result, ensure};

pub(super) use self::{
    answers::Family,
    bed::{ALLOWED, OTHER, rule},
    place::{Host, OnHost, Place},
};
use self::{
    bed::Bed,
    table::{CLIENTS, Client, RESOLV_CONFS},
};

#[test]
fn each_client_reaches_the_names_of_rules_and_no_others() -> Result<()> {
    let mut bed = Bed::new(RESOLV_CONFS[0])?;
    for &resolv_conf in RESOLV_CONFS {
        bed.place.world.write_resolv_conf(resolv_conf)?;
        for client in CLIENTS {
            if !client.configurations.have(resolv_conf) {
                continue;
            }
            for family in Family::BOTH {
                try_client(&mut bed, client, family)
                    .with_context(|| format!("{}, {resolv_conf:?}", client.name))?;
            }
        }
    }
    Ok(())
}

/// Looks up one name of the zone that is allowed, and one that is not. The control: without a fence the latter is reached.
fn try_client(bed: &mut Bed, client: &Client, family: Family) -> Result<()> {
    let control = bed.place.next("plain", OTHER, family);
    let outcome = bed.open(client, &control)?;
    let reached = bed.place.reached(&control);
    ensure!(reached == control.addresses, "{control:?}: {outcome:?}");

    let allowed = bed.place.next("plain", ALLOWED, family);
    let outcome = bed.fenced(client, &allowed)?;
    let reached = bed.place.reached(&allowed);
    ensure!(reached == allowed.addresses, "{allowed:?}: {outcome:?}");

    let other = bed.place.next("plain", OTHER, family);
    let outcome = bed.fenced(client, &other)?;
    ensure!(
        bed.place.reached(&other).is_empty(),
        "{other:?}: {outcome:?}"
    );
    ensure!(!outcome.is_success, "{other:?}: {outcome:?}");
    ensure!(
        !bed.place.nameserver.knows(&other.name),
        "{other:?} is known"
    );
    Ok(())
}
