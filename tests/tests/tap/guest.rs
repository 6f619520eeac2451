//! Real guests under QEMU with a tap device: a routed one with static addresses, and one in a bridge whose gateway serves
//! DHCP, DNS and router advertisements.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    guest::{Guest, Options},
    probe::ProbeResult,
    progress,
    tap::{
        Header, Link, Scene,
        scene::{
            self, GATEWAY_V4, GATEWAY_V6, HOST, NEIGHBOUR_V4, SERVER_V4, SERVER_V6, forget_guest,
        },
        served::Served,
    },
};

use super::{bed::GUEST_MAC, matrix::kind, stack::probes};

const NO_FENCE: [&str; 0] = [];
/// A refusal is known within this time. The guest is emulated, so it takes longer than on a wire.
const AT_ONCE_MS: f64 = 1000.0;

/// The guest's network, as the user of a tap device writes it.
fn options() -> Options {
    Options {
        netdev: Some("tap,ifname=tap0,script=no,downscript=no".into()),
        mac: Some(GUEST_MAC.into()),
        ..Options::default()
    }
}

fn probe(guest: &mut Guest, probes: &[String]) -> Result<Vec<ProbeResult>> {
    let mut words = vec!["--timeout-ms", "3000"];
    words.extend(probes.iter().map(String::as_str));
    guest.probe(&words)
}

/// Gives the guest static addresses instead of those of QEMU's own network.
fn give_addresses(guest: &mut Guest) -> Result<()> {
    guest.shell(
        "ip addr del 10.0.2.15/24 dev eth0; ip -6 route del default; ip -6 addr del fec0::15/64 dev eth0; \
         ip addr add 192.168.122.10/24 dev eth0 && ip route add default via 192.168.122.1 && \
         ip -6 addr add fd00:122::10/64 dev eth0 && ip -6 route add default via fd00:122::1",
    )?;
    Ok(())
}

fn is_refused(outcome: &ProbeResult) -> bool {
    match outcome.probe.split('/').next() {
        Some("tcp") => outcome.failed_with("ECONNREFUSED"),
        Some("udp-connected") => {
            outcome.failed_with("EHOSTUNREACH") || outcome.failed_with("EACCES")
        }
        _ => !outcome.is_reached(),
    }
}

/// Checks that the guest has the internet and not the host.
fn check(guest: &mut Guest, scene: &Scene) -> Result<()> {
    let before = scene.arrivals().len();
    let mut slowest: f64 = 0.0;
    // The first packet to the gateway waits for ARP and neighbour discovery.
    probe(guest, &probes(&["ping"], &[SERVER_V4, SERVER_V6]))?;
    for outcome in probe(guest, &probes(&["tcp", "udp-connected"], &HOST))? {
        ensure!(is_refused(&outcome), "{outcome:?}\n{}", guest.logs());
        slowest = slowest.max(outcome.ms);
    }
    progress::note(&format!("the slowest refusal took {slowest} ms"));
    ensure!(slowest < AT_ONCE_MS, "a refusal took {slowest} ms");
    for outcome in probe(guest, &probes(&["ping"], &HOST))? {
        ensure!(!outcome.is_reached(), "{outcome:?}");
    }
    let internet = probes(&["tcp", "udp", "ping"], &[SERVER_V4, SERVER_V6]);
    for outcome in probe(guest, &internet)? {
        ensure!(outcome.is_reached(), "{outcome:?}\n{}", guest.logs());
    }
    ensure!(scene.arrivals().len() == before, "something arrived");
    Ok(())
}

/// Checks that without a fence all of the host is reached.
fn control(guest: &mut Guest) -> Result<()> {
    for outcome in probe(guest, &probes(&["tcp", "udp", "ping"], &HOST))? {
        ensure!(
            outcome.is_reached(),
            "control: {outcome:?}\n{}",
            guest.logs()
        );
    }
    Ok(())
}

#[test]
fn a_routed_guest_has_the_internet_and_not_its_host() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Routed, Header::Virtio, false))?;
    forget_guest(&scene)?;
    let mut open = Guest::boot_on(&scene.host, &NO_FENCE, &options())?;
    give_addresses(&mut open)?;
    control(&mut open)?;
    drop(open);

    let fence = Fence::new("tap-guest")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot_on(&scene.host, &fence.launcher(), &options())?;
    give_addresses(&mut guest)?;
    check(&mut guest, &scene)?;
    for address in HOST {
        let refusal = fence.await_refusal(|refusal| {
            refusal.destination == address.to_string() && refusal.protocol == "tcp"
        })?;
        ensure!(refusal.rule == "deny host", "{refusal:?}");
    }
    Ok(())
}

/// Has the guest ask for an address, for routers and for nameservers.
fn ask_for_addresses(guest: &mut Guest) -> Result<String> {
    guest.shell(
        "ip addr flush dev eth0; ip -6 route flush dev eth0; ip link set eth0 down; \
         echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra; \
         echo 'if [ $1 = bound ]; then ip addr add $ip/24 dev eth0; ip route add default via $router; \
         echo nameserver $dns >/etc/resolv.conf; fi' >/tmp/bound; \
         (echo '#!/bin/sh'; cat /tmp/bound) >/tmp/lease; busybox chmod +x /tmp/lease; ip link set eth0 up",
    )?;
    guest
        .shell("busybox udhcpc -i eth0 -n -q -t 10 -T 1 -s /tmp/lease")
        .context("DHCP")?;
    guest.shell(
        "for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do \
         ip -6 route | grep -q ^default && break; sleep 1; done; ip addr; ip -6 route",
    )
}

#[test]
fn a_guest_in_a_bridge_boots_by_dhcp_and_resolves() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Bridged, Header::Virtio, true))?;
    forget_guest(&scene)?;
    let served = Served::start(
        &scene,
        &[("www.example", SERVER_V4), ("six.example", SERVER_V6)],
    )?;
    let mut open = Guest::boot_on(&scene.host, &NO_FENCE, &options())?;
    let network = ask_for_addresses(&mut open)?;
    ensure!(
        network.contains("192.168.122.1") && network.contains("fd00:122:"),
        "control: {network}\n{}",
        served.log()?
    );
    control(&mut open)?;
    drop(open);

    let fence = Fence::new("tap-dhcp")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot_on(&scene.host, &fence.launcher(), &options())?;
    let network = ask_for_addresses(&mut guest)?;
    ensure!(
        network.contains("192.168.122.1")
            && network.contains("fd00:122:")
            && network.contains("default via fe80:"),
        "{network}\n{}\n{}",
        served.log()?,
        guest.logs()
    );
    let gateways: [IpAddr; 2] = [GATEWAY_V4, GATEWAY_V6];
    for gateway in gateways {
        for (name, address) in [("www.example", SERVER_V4), ("six.example", SERVER_V6)] {
            // It fails, because a name has an address of one family only.
            let answer = guest.shell(&format!("nslookup {name} {gateway} || true"))?;
            ensure!(answer.contains(&address.to_string()), "{answer}");
        }
    }
    check(&mut guest, &scene)?;
    for outcome in probe(&mut guest, &probes(&["ping"], &[NEIGHBOUR_V4]))? {
        ensure!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}
