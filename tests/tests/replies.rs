//! Answers out of the fence: a peer on the host that spoke first is answered, and nobody else.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    listener::Listeners,
    namespace::Namespace,
    probe::{self, ProbeResult},
    shell::Shell,
    world::World,
};

/// The port served inside.
const INSIDE: u16 = 5000;
/// A service of the host's that never speaks first.
const SILENT: u16 = 8080;
/// The port from which a peer on the host speaks.
const PEER: u16 = 6000;

/// The host by loopback, by its LAN address and by another device's, in both families.
const ADDRESSES: [&str; 6] = [
    "127.0.0.1",
    "192.0.2.10",
    "203.0.113.5",
    "::1",
    "2001:db8:1::10",
    "2001:db8:3::5",
];

/// Starts a service in the fence, or without one, and waits until it is up.
fn serve(world: &World, fence: Option<&Fence>, service: &str) -> Result<Shell> {
    let command = match fence {
        Some(fence) => fence.command(&world.host, "sh"),
        None => world.host.command("sh"),
    };
    let mut shell = Shell::start(command)?;
    shell.tell(&format!(
        "{} --serve {service}/{INSIDE} &",
        probe::program()?.display()
    ))?;
    assert_eq!(shell.next_line()?, "serving");
    Ok(shell)
}

fn stop(mut shell: Shell) -> Result<()> {
    shell.tell("kill $!; exit")
}

fn ask_from(namespace: &Namespace, attempt: &str) -> Result<ProbeResult> {
    let outcomes = probe::run(namespace, &["--timeout-ms", "500", attempt])?;
    outcomes.into_iter().next().context("one outcome")
}

fn nobody(label: &str) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody"]))
}

#[test]
fn a_host_peer_that_spoke_first_is_answered_in_every_way() -> Result<()> {
    let world = World::new()?;
    for service in ["udp", "udp-connected", "udp-new"] {
        for address in ADDRESSES {
            for fence in [None, Some(nobody("answers")?)] {
                let inside = serve(&world, fence.as_ref(), service)?;
                let outcome = ask_from(&world.host, &format!("udp/{address}/{INSIDE}"))?;
                assert!(
                    outcome.says("hello from the probe"),
                    "{service}, {}: {outcome:?}",
                    if fence.is_some() { "fenced" } else { "control" }
                );
                stop(inside)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_peer_elsewhere_is_answered_as_ever() -> Result<()> {
    let world = World::new()?;
    let fence = nobody("lan")?;
    let inside = serve(&world, Some(&fence), "udp")?;
    for address in ["192.0.2.10", "2001:db8:1::10"] {
        let outcome = ask_from(&world.internet, &format!("udp/{address}/{INSIDE}"))?;
        assert!(outcome.says("hello from the probe"), "{outcome:?}");
    }
    stop(inside)
}

#[test]
fn tcp_to_a_listener_inside_works_and_is_no_way_out() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, SILENT)?;
    let fence = nobody("tcp")?;
    let mut inside = serve(&world, Some(&fence), "tcp")?;
    for address in ADDRESSES {
        let outcome = ask_from(&world.host, &format!("tcp/{address}/{INSIDE}"))?;
        assert!(outcome.says("hello from the probe"), "{outcome:?}");
        let out = inside.attempt(&[&format!("tcp/{address}/{SILENT}")])?;
        assert!(out[0].failed_with("ECONNREFUSED"), "{out:?}");
    }
    assert_eq!(services.arrivals(), []);
    stop(inside)
}

/// One peer has spoken to one port. From there, and from nowhere else, that peer is answered.
#[test]
fn the_memory_is_of_the_peer_its_port_and_the_port_inside() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, SILENT)?;
    let fence = nobody("memory")?;
    let mut inside = serve(&world, Some(&fence), "udp")?;
    let spoken = ask_from(
        &world.host,
        &format!("udp/127.0.0.1/{INSIDE}+port={PEER}+reuse"),
    )?;
    assert!(spoken.is_reached(), "{spoken:?}");
    let peer = Listeners::everywhere(&world.host, PEER)?;

    let attempt = |shell: &mut Shell, from: u16, address: &str, port: u16| -> Result<ProbeResult> {
        let outcomes = shell.attempt(&[
            "--timeout-ms",
            "500",
            &format!("udp/{address}/{port}+port={from}+reuse"),
        ])?;
        outcomes.into_iter().next().context("one outcome")
    };
    // Whoever is at the peer's port now is taken for the peer.
    let answer = attempt(&mut inside, INSIDE, "127.0.0.1", PEER)?;
    assert!(answer.is_reached(), "{answer:?}");
    assert_eq!(peer.arrivals().len(), 1);

    for (from, address, port) in [
        // Another port inside.
        (INSIDE + 1, "127.0.0.1", PEER),
        // Another port of the peer's, with a service on it.
        (INSIDE, "127.0.0.1", SILENT),
        // The peer by another of its addresses.
        (INSIDE, "192.0.2.10", PEER),
        (INSIDE, "127.0.0.2", PEER),
        (INSIDE, "::1", PEER),
    ] {
        let outcome = attempt(&mut inside, from, address, port)?;
        assert!(
            outcome.failed_with("ECONNREFUSED"),
            "from {from}: {outcome:?}"
        );
    }
    // TCP to the peer's port is another protocol.
    let tcp = inside.attempt(&[&format!("tcp/127.0.0.1/{PEER}")])?;
    assert!(tcp[0].failed_with("ECONNREFUSED"), "{tcp:?}");
    assert_eq!(peer.arrivals().len(), 1);
    assert_eq!(services.arrivals(), []);

    // Another fence remembers nothing of it.
    drop(inside);
    let other = nobody("other")?;
    let mut inside = serve(&world, Some(&other), "udp")?;
    let outcome = attempt(&mut inside, INSIDE, "127.0.0.1", PEER)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    stop(inside)
}

/// A host's service that announces itself to all has not spoken to the fence.
#[test]
fn broadcast_and_multicast_open_no_way_back() -> Result<()> {
    let world = World::new()?;
    world.host_ip("address add 10.9.9.1/24 broadcast 10.9.9.255 dev lo")?;
    world.host_ip("link set lo multicast on")?;
    world.host_ip("route add 239.1.2.3 dev lo")?;
    let group: SocketAddr = format!("239.1.2.3:{INSIDE}").parse()?;
    for announced_to in ["192.0.2.255", "10.9.9.255", "127.255.255.255", "239.1.2.3"] {
        // A member of the group, which a rule has to allow.
        let fence = nobody("announced")?.with(&["--allow", &format!("udp:{group}")]);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let script = format!(
            "{} --hear {INSIDE}/{}/lo &",
            probe::program()?.display(),
            group.ip()
        );
        inside.tell(&script)?;
        assert_eq!(inside.next_line()?, "serving");
        let announce = format!("udp/{announced_to}/{INSIDE}+port={PEER}+reuse");
        ask_from(&world.host, &announce)?;
        // It was heard: that is the control.
        let heard = inside.next_line()?;
        let source: SocketAddr = heard
            .strip_prefix("heard ")
            .with_context(|| heard.clone())?
            .parse()?;
        assert_eq!(source.port(), PEER);
        let peer = Listeners::everywhere(&world.host, PEER)?;
        for address in [source.ip().to_string().as_str(), "127.0.0.1", "192.0.2.10"] {
            let outcome =
                inside.attempt(&[&format!("udp/{address}/{PEER}+port={INSIDE}+reuse")])?;
            assert!(
                outcome[0].failed_with("ECONNREFUSED"),
                "{announced_to}: {outcome:?}"
            );
        }
        assert_eq!(peer.arrivals(), []);
        stop(inside)?;
    }
    Ok(())
}

/// In a network namespace of their own anybody is root, and can have the host's address speak first.
/// What is heard there does not count outside.
#[test]
fn a_peer_in_a_namespace_of_ones_own_is_none_of_the_hosts() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, SILENT)?;
    // The group is what `--hear` joins.
    let fence = nobody("forged")?.with(&["--allow", &format!("udp:239.1.2.3:{INSIDE}")]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?.display().to_string();
    let attempt = format!("udp/192.0.2.10/{SILENT}+port={INSIDE}+reuse");
    let before = inside.attempt(&[&attempt])?;
    assert!(before[0].failed_with("ECONNREFUSED"), "{before:?}");

    // Heard by a socket on the port, in the same fence. The group is what `--hear` needs, no more.
    inside.tell(&format!(
        "unshare --user --map-root-user --net sh -c 'ip link set lo up multicast on && \
         ip address add 10.9.9.9 dev lo && ip route add 192.0.2.0/24 dev lo && \
         ip route add 239.0.0.0/8 dev lo && \
         {{ {program} --hear {INSIDE}/239.1.2.3/lo & }} && sleep 1 && \
         {program} --forge lo/192.0.2.10:{SILENT}/10.9.9.9:{INSIDE} && \
         {program} --timeout-ms 500 {attempt}; kill $!'"
    ))?;
    assert_eq!(inside.next_line()?, "serving");
    assert_eq!(inside.next_line()?, format!("heard 192.0.2.10:{SILENT}"));
    // There it is a peer, and may be answered: that is the control.
    let there = inside.next_line()?;
    assert!(there.contains("\"sent\""), "{there}");

    let after = inside.attempt(&[&attempt])?;
    assert!(after[0].failed_with("ECONNREFUSED"), "{after:?}");
    assert_eq!(services.arrivals(), []);
    stop(inside)
}
