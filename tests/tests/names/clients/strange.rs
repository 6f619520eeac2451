//! Answers of nameservers that are unusual or hostile: the addresses of the name that was asked open, and no others.

use std::net::IpAddr;

use tests::{listener::Listeners, run::wait_until};

use super::{
    super::PORT,
    table::{C_ARES, GLIBC, GO, MUSL},
    *,
};

/// A nameserver is asked once, for the shortest time that is possible. The last two options are those of c-ares.
const IMPATIENT: &str =
    "nameserver 127.0.0.53\noptions timeout:1 attempts:1 retrans:1000 retry:1\n";

/// An address, as a client takes it instead of a name.
fn direct(address: IpAddr) -> Host {
    Host {
        name: address.to_string(),
        addresses: vec![address],
    }
}

/// Checks that nothing opened an address; then, as the control, reaches it without a fence.
fn is_closed(bed: &mut Bed, address: IpAddr) -> Result<()> {
    let host = direct(address);
    let outcome = bed.fenced(&GLIBC, &host)?;
    ensure!(bed.place.reached(&host).is_empty(), "{host:?}: {outcome:?}");
    let outcome = bed.open(&GLIBC, &host)?;
    ensure!(
        bed.place.reached(&host) == [address],
        "{host:?}: {outcome:?}"
    );
    Ok(())
}

#[test]
fn the_addresses_of_a_name_are_reached_however_they_are_answered() -> Result<()> {
    let mut bed = Bed::new(RESOLV_CONFS[0])?;
    for kind in ["chain", "brief", "many", "cut", "noise", "slow"] {
        for client in [&GLIBC, &MUSL, &C_ARES, &GO] {
            for family in Family::BOTH {
                let host = bed.place.next(kind, ALLOWED, family);
                let outcome = bed.fenced(client, &host)?;
                let reached = bed.place.reached(&host);
                let is_right = match client.name {
                    // It connects to one address.
                    "Go" => reached.len() == 1,
                    // The musl of Debian 12 does not ask by TCP: it takes what fits into a short datagram.
                    "musl" => !reached.is_empty() && outcome.is_success,
                    _ => reached == host.addresses && outcome.is_success,
                };
                let which = format!("{}, {host:?}", client.name);
                ensure!(is_right, "{which}: {reached:?} {outcome:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn addresses_of_other_names_do_not_open() -> Result<()> {
    let mut bed = Bed::new(RESOLV_CONFS[0])?;
    for client in [&GLIBC, &MUSL, &C_ARES, &GO] {
        for family in Family::BOTH {
            let host = bed.place.next("others", ALLOWED, family);
            let outcome = bed.fenced(client, &host)?;
            let reached = bed.place.reached(&host);
            ensure!(reached == host.addresses[..1], "{host:?}: {outcome:?}");
            is_closed(&mut bed, host.addresses[1])?;

            let host = bed.place.next("foreign", ALLOWED, family);
            let outcome = bed.fenced(client, &host)?;
            ensure!(bed.place.reached(&host).is_empty(), "{host:?}: {outcome:?}");
            ensure!(!outcome.is_success, "{host:?}: {outcome:?}");
            is_closed(&mut bed, host.addresses[0])?;
        }
    }
    Ok(())
}

#[test]
fn no_answer_leads_to_the_host() -> Result<()> {
    let mut bed = Bed::new(RESOLV_CONFS[0])?;
    let services = Listeners::everywhere(&bed.place.world.host, PORT)?;
    for client in [&GLIBC, &MUSL, &C_ARES, &GO] {
        for family in Family::BOTH {
            let before = services.arrivals().len();
            let host = bed.place.next("rebound", ALLOWED, family);
            let outcome = bed.fenced(client, &host)?;
            let reached = bed.place.reached(&host);
            ensure!(reached == host.addresses, "{host:?}: {outcome:?}");
            // The program in Go takes the page for an error.
            let has_others = !outcome.is_success && client.name != "Go";
            ensure!(!has_others, "{host:?}: {outcome:?}");
            let after = services.arrivals().len();
            ensure!(after == before, "{host:?}: {outcome:?}");
        }
    }
    let host = bed.place.next("rebound", ALLOWED, Family::V4);
    let outcome = bed.open(&GLIBC, &host)?;
    ensure!(!services.arrivals().is_empty(), "the control: {outcome:?}");
    Ok(())
}

#[test]
fn names_without_an_answer_do_not_resolve() -> Result<()> {
    let mut bed = Bed::new(IMPATIENT)?;
    for kind in ["garbage", "never"] {
        for client in [&GLIBC, &MUSL, &C_ARES, &GO] {
            let host = bed.place.next(kind, ALLOWED, Family::V4);
            let outcome = bed.fenced(client, &host)?;
            ensure!(!outcome.is_success, "{host:?}: {outcome:?}");
            // The client may have given up before.
            wait_until("the nameserver is asked", || {
                Ok(bed.place.nameserver.knows(&host.name))
            })?;
            is_closed(&mut bed, host.addresses[0])?;
        }
    }
    // The resolver goes on.
    bed.place.world.write_resolv_conf(RESOLV_CONFS[0])?;
    wait_until("other names resolve", || {
        let host = bed.place.next("plain", ALLOWED, Family::V4);
        bed.fenced(&GLIBC, &host)?;
        Ok(bed.place.reached(&host) == host.addresses)
    })
}
