//! Guests look names up through the fence's resolver, whatever nameserver they ask, behind QEMU's user network and behind
//! passt.

use std::path::PathBuf;

use tests::guest::{Guest, Options};

use super::{
    clients::{ALLOWED, Family, Host, OTHER, OnHost, Place, rule},
    *,
};
use crate::passt;

/// libslirp answers at fec0::3 only if the host has a nameserver by IPv6.
const RESOLV_CONF: &str = "nameserver 127.0.0.53\nnameserver 2001:db8:2::53\n";

/// How a guest fetches a page: by musl, which is packed for it, and by busybox.
const CLIENTS: [&str; 2] = ["/bin/musl PORT NAME", "wget -q -O - http://NAME:PORT/"];

/// More files for guests.
fn files(place: &Place) -> Vec<(String, PathBuf)> {
    vec![("/bin/musl".to_owned(), place.program("musl"))]
}

/// Runs a client in a guest; returns what it printed.
fn run(guest: &mut Guest, client: &str, host: &Host) -> Result<String> {
    let line = client.replace("PORT", &PORT.to_string());
    let line = line.replace("NAME", &host.name);
    guest.shell(&format!("{line} 2>&1 || echo failed"))
}

/// Makes the guest ask nameservers, with `+` between them.
fn ask(guest: &mut Guest, nameserver: &str) -> Result<()> {
    guest.shell(": >/etc/resolv.conf")?;
    for nameserver in nameserver.split('+') {
        guest.shell(&format!("echo nameserver {nameserver} >>/etc/resolv.conf"))?;
    }
    Ok(())
}

/// By each nameserver and with each client, names that are allowed are reached, and others are not.
fn try_names(place: &mut Place, guest: &mut Guest, nameservers: &[&str]) -> Result<()> {
    for nameserver in nameservers {
        ask(guest, nameserver)?;
        for client in CLIENTS {
            for family in Family::BOTH {
                let allowed = place.next("plain", ALLOWED, family);
                let said = run(guest, client, &allowed)?;
                let reached = place.reached(&allowed);
                ensure!(
                    reached == allowed.addresses,
                    "{nameserver}, {allowed:?}: {said}"
                );

                let other = place.next("plain", OTHER, family);
                let said = run(guest, client, &other)?;
                ensure!(said.ends_with("failed"), "{nameserver}, {other:?}: {said}");
                ensure!(place.reached(&other).is_empty(), "{nameserver}, {other:?}");
                ensure!(!place.nameserver.knows(&other.name), "{other:?} is known");
            }
        }
    }
    Ok(())
}

/// What was not looked up, what another name has, and the host stay closed, and queries by TCP are led.
fn try_others(place: &mut Place, guest: &mut Guest) -> Result<()> {
    let unasked = place.next("plain", ALLOWED, Family::V4);
    let address = unasked.addresses[0];
    for attempt in [
        format!("tcp/{address}/{PORT}"),
        format!("tcp/10.0.2.2/{PORT}"),
    ] {
        let outcome = guest.attempt(&attempt)?;
        ensure!(!outcome.is_reached(), "{outcome:?}");
    }
    for nameserver in ["198.51.100.99", "2001:db8:7::99"] {
        let host = place.next("plain", ALLOWED, Family::V4);
        let outcome = guest.attempt(&format!("dns-tcp/{nameserver}/{}", host.name))?;
        let address = host.addresses[0].to_string();
        ensure!(outcome.says(&address), "{nameserver}: {outcome:?}");
        let other = place.next("plain", OTHER, Family::V4);
        let outcome = guest.attempt(&format!("dns-tcp/{nameserver}/{}", other.name))?;
        ensure!(outcome.says("rcode 3"), "{nameserver}: {outcome:?}");
    }
    Ok(())
}

/// The control: with a rule for the other zone, its names are reached in the same ways.
fn try_allowed(
    place: &mut Place,
    guest: &mut Guest,
    fence: &Fence,
    nameservers: &[&str],
) -> Result<()> {
    set(&place.world, fence, &["--allow", &format!("*.{OTHER}")])?;
    for nameserver in nameservers {
        ask(guest, nameserver)?;
        for (client, family) in CLIENTS.into_iter().zip(Family::BOTH) {
            let other = place.next("plain", OTHER, family);
            let said = run(guest, client, &other)?;
            let reached = place.reached(&other);
            ensure!(
                reached == other.addresses,
                "{nameserver}, {other:?}: {said}"
            );
        }
    }
    Ok(())
}

/// Nobody is at the last two addresses.
#[test]
fn a_guest_behind_the_user_network_reaches_the_names_of_rules_and_no_others() -> Result<()> {
    const NAMESERVERS: [&str; 5] = [
        "10.0.2.3",
        "fec0::3",
        "10.0.2.3+198.51.100.99",
        "198.51.100.99",
        "2001:db8:7::99",
    ];
    let mut place = Place::new(OnHost::Nameserver)?;
    place.world.write_resolv_conf(RESOLV_CONF)?;
    let options = Options {
        files: files(&place),
        ..Options::default()
    };
    let fence = locked("guest-names", &[&rule()])?;
    let mut guest = Guest::boot(&place.world, &fence.launcher(), &options)?;
    try_names(&mut place, &mut guest, &NAMESERVERS)?;
    try_others(&mut place, &mut guest)?;
    try_allowed(&mut place, &mut guest, &fence, &NAMESERVERS)
}

/// Nobody is at the last two addresses.
#[test]
fn a_guest_behind_passt_reaches_the_names_of_rules_and_no_others() -> Result<()> {
    const NAMESERVERS: [&str; 3] = ["10.0.2.3", "198.51.100.99", "2001:db8:7::99"];
    let mut place = Place::new(OnHost::Nameserver)?;
    place.world.write_resolv_conf(RESOLV_CONF)?;
    let fence = locked("passt-names", &[&rule()])?.with(&["--allow-unfenced-net"]);
    let mut guest = passt::boot(&place.world, &fence.launcher(), files(&place))?;
    try_names(&mut place, &mut guest, &NAMESERVERS)?;
    try_others(&mut place, &mut guest)?;
    try_allowed(&mut place, &mut guest, &fence, &NAMESERVERS)
}
