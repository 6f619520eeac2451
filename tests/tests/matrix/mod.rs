//! The bypass matrix: every way to send anything, to everything that is the host. Each case gets
//! through outside the fence, in the same network; inside nothing arrives at a listener, nor at a
//! capture on the host's devices. The same ways to the internet work in both.

mod attached;
mod case;
mod late;
mod prove;
mod scene;
mod table;

use anyhow::Result;

use self::prove::Start;

#[test]
fn every_way_to_the_host_is_refused() -> Result<()> {
    prove::refused(table::WAYS)
}

#[test]
fn an_independent_program_is_refused() -> Result<()> {
    prove::refused(table::INDEPENDENT)
}

#[test]
fn every_way_is_refused_to_root() -> Result<()> {
    prove::refused(table::ROOT)
}

#[test]
fn raw_sockets_reach_nothing_even_where_they_may_be_made() -> Result<()> {
    prove::refused(table::RAW)
}

#[test]
fn every_spelling_of_an_address_is_refused() -> Result<()> {
    prove::refused(table::SPELLINGS)
}

#[test]
fn no_device_leads_around() -> Result<()> {
    prove::refused(table::DEVICES)
}

#[test]
fn no_route_leads_around() -> Result<()> {
    prove::refused(table::ROUTES)
}

#[test]
fn no_translation_leads_around() -> Result<()> {
    prove::refused(table::NAT)
}

#[test]
fn every_form_of_broadcast_is_refused() -> Result<()> {
    prove::refused(table::BROADCAST)
}

#[test]
fn multicast_is_refused_on_every_device() -> Result<()> {
    prove::refused(table::MULTICAST)
}

#[test]
fn nothing_but_udp_gets_to_broadcast() -> Result<()> {
    prove::refused(table::BROADCAST_OPTION)
}

/// The one thing that is known to get out, and is told of in the README.
#[test]
fn a_copy_of_multicast_that_goes_to_the_host_is_refused_all_the_same_and_not_answered() -> Result<()>
{
    prove::unanswered(table::COPIES)
}

#[test]
fn what_turns_local_after_connect_is_refused() -> Result<()> {
    late::packets_are_refused()
}

#[test]
fn a_connection_whose_peer_turns_local_reaches_nobody() -> Result<()> {
    late::connections_reach_nobody()
}

#[test]
fn no_source_route_leads_through_the_host() -> Result<()> {
    prove::refused(table::SOURCE_ROUTES)
}

#[test]
fn no_other_namespace_leads_around() -> Result<()> {
    prove::refused(table::ANNEX)
}

#[test]
fn the_internet_is_reached_in_every_way() -> Result<()> {
    prove::working_in(Start::Exec, table::INTERNET)
}

#[test]
fn the_table_is_as_long_as_was_promised() -> Result<()> {
    let mut all = 0;
    for section in table::REFUSED {
        all += case::cases(section)?.len();
    }
    assert!(all >= 150, "{all}");
    println!("{all} cases");
    Ok(())
}
