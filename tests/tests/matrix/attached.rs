//! The same from a cgroup to which a fence was attached: what `exec` refuses, `attach` refuses, and nothing more.

use anyhow::Result;

use super::{
    prove::{self, Start},
    table,
};

fn refused(section: &'static str) -> Result<()> {
    prove::refused_in(Start::Attach, section)
}

#[test]
fn every_way_to_the_host_is_refused() -> Result<()> {
    refused(table::WAYS)
}

#[test]
fn every_way_is_refused_to_root() -> Result<()> {
    refused(table::ROOT)
}

#[test]
fn raw_sockets_reach_nothing_even_where_they_may_be_made() -> Result<()> {
    refused(table::RAW)
}

#[test]
fn every_spelling_of_an_address_is_refused() -> Result<()> {
    refused(table::SPELLINGS)
}

#[test]
fn no_device_leads_around() -> Result<()> {
    refused(table::DEVICES)
}

#[test]
fn no_route_or_translation_leads_around() -> Result<()> {
    for section in [
        table::INDEPENDENT,
        table::ROUTES,
        table::NAT,
        table::SOURCE_ROUTES,
    ] {
        refused(section)?;
    }
    Ok(())
}

#[test]
fn every_broadcast_and_multicast_is_refused() -> Result<()> {
    for section in [table::BROADCAST, table::MULTICAST, table::BROADCAST_OPTION] {
        refused(section)?;
    }
    Ok(())
}

#[test]
fn no_other_namespace_leads_around() -> Result<()> {
    refused(table::ANNEX)
}

#[test]
fn the_internet_is_reached_in_every_way() -> Result<()> {
    prove::working_in(Start::Attach, table::INTERNET)
}
