//! A guest with a real network stack, without a machine: what it reaches, what it is told, and what reaches it.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    listener::Listeners,
    namespace::Namespace,
    probe::{self, ProbeResult},
    tap::{
        Header::{self, None, Virtio},
        Kind,
        Link::{self, Bridged, Routed},
        Scene,
        relay::Relay,
        scene::{
            self, GUEST_V4, GUEST_V6, HOST, PORT, SERVER_V4, SERVER_V6, TAP, forget_guest,
            furnish_guest,
        },
    },
};

use super::{bed::fence, matrix::kind};

/// The longest time after which a refusal is known, in milliseconds. It takes far less than one.
const AT_ONCE_MS: f64 = 1000.0;

/// A scene and a guest whose card is joined to the tap device.
pub(super) struct Guest {
    pub(super) scene: Scene,
    pub(super) guest: Namespace,
    _relay: Relay,
}

impl Guest {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let scene = scene::lay_out(kind)?;
        let guest = Namespace::new()?;
        let relay = Relay::start(&scene.host, TAP, &guest, kind.header)?;
        furnish_guest(&guest)?;
        forget_guest(&scene)?;
        Ok(Self {
            scene,
            guest,
            _relay: relay,
        })
    }

    /// Makes probes in the guest.
    pub(super) fn probe(&self, probes: &[String]) -> Result<Vec<ProbeResult>> {
        let mut words = vec!["--timeout-ms", "1500"];
        words.extend(probes.iter().map(String::as_str));
        probe::run(&self.guest, &words)
    }
}

/// Probes of each address by these ways.
pub(super) fn probes(ways: &[&str], addresses: &[IpAddr]) -> Vec<String> {
    let by = |address: &IpAddr| -> Vec<String> {
        ways.iter()
            .map(|way| match *way {
                "ping" => format!("ping/{address}"),
                way => format!("{way}/{address}/{PORT}"),
            })
            .collect()
    };
    addresses.iter().flat_map(by).collect()
}

/// The guest has the internet, and the host refuses it at once.
fn refused(link: Link, header: Header) -> Result<()> {
    let there = Guest::new(kind(link, header, false))?;
    let ways = ["tcp", "udp", "ping"];
    let ways_refused = ["tcp", "udp-connected", "ping"];
    let hosts = probes(&ways_refused, &HOST);
    let servers = probes(&ways, &[SERVER_V4, SERVER_V6]);
    for outcome in there.probe(&[hosts.clone(), servers.clone()].concat())? {
        ensure!(outcome.is_reached(), "control: {outcome:?}");
    }
    let before = there.scene.arrivals().len();
    ensure!(before == 2 * HOST.len(), "control: {before} arrivals");

    let (fence, shell) = fence(&there.scene, "stack", &[])?;
    let mut slowest: f64 = 0.0;
    for outcome in there.probe(&hosts)? {
        let is_tcp = outcome.probe.starts_with("tcp");
        let is_ping = outcome.probe.starts_with("ping");
        let refused = match (is_tcp, is_ping) {
            (true, _) => outcome.failed_with("ECONNREFUSED"),
            // The socket of a ping may not tell of an error.
            (_, true) => !outcome.is_reached(),
            _ => outcome.failed_with("EHOSTUNREACH") || outcome.failed_with("EACCES"),
        };
        ensure!(refused, "{outcome:?}\n{}", shell.stderr());
        if !is_ping {
            ensure!(outcome.ms < AT_ONCE_MS, "late: {outcome:?}");
            slowest = slowest.max(outcome.ms);
        }
    }
    tests::progress::note(&format!("the slowest refusal took {slowest} ms"));
    for outcome in there.probe(&servers)? {
        ensure!(outcome.is_reached(), "{outcome:?}\n{}", shell.stderr());
    }
    ensure!(there.scene.arrivals().len() == before, "something arrived");
    for (protocol, port) in [("tcp", PORT), ("udp", PORT)] {
        for address in HOST {
            let refusal = fence.await_refusal(|refusal| {
                refusal.protocol == protocol && refusal.destination == address.to_string()
            })?;
            ensure!(
                (refusal.port, refusal.rule.as_str()) == (port, "deny host"),
                "{refusal:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_stack_on_a_routed_device_is_refused_at_once() -> Result<()> {
    refused(Routed, None)
}

#[test]
fn a_stack_on_a_routed_device_with_offloads_is_refused_at_once() -> Result<()> {
    refused(Routed, Virtio)
}

#[test]
fn a_stack_in_a_bridge_is_refused_at_once() -> Result<()> {
    refused(Bridged, None)
}

#[test]
fn a_stack_in_a_bridge_with_offloads_is_refused_at_once() -> Result<()> {
    refused(Bridged, Virtio)
}

/// What the host begins, it gets an answer to, also when the supervisor is dead.
fn begun_by_the_host(link: Link, header: Header) -> Result<()> {
    let there = Guest::new(kind(link, header, false))?;
    let served = Listeners::everywhere(&there.guest, PORT)?;
    let begun = probes(&["tcp", "udp", "ping"], &[GUEST_V4, GUEST_V6]);
    let begin = || {
        let mut words = vec!["--timeout-ms", "1500"];
        words.extend(begun.iter().map(String::as_str));
        probe::run(&there.scene.host, &words)
    };
    let back = probes(&["tcp", "udp"], &HOST);
    for outcome in begin()? {
        ensure!(outcome.is_reached(), "control: {outcome:?}");
    }
    let (_fence, shell) = fence(&there.scene, "begun", &[])?;
    for is_dead in [false, true] {
        if is_dead {
            shell.signal(Signal::SIGKILL)?;
        }
        for outcome in begin()? {
            let context = format!(
                "supervisor dead: {is_dead}: {outcome:?}\n{}",
                shell.stderr()
            );
            ensure!(outcome.is_reached(), "{context}");
        }
        // It does not open the way back.
        for outcome in there.probe(&back)? {
            ensure!(!outcome.is_reached(), "back: {outcome:?}");
        }
    }
    ensure!(served.arrivals().len() == 12, "{:?}", served.arrivals());
    ensure!(there.scene.arrivals().is_empty(), "something came back");
    Ok(())
}

#[test]
fn what_the_host_begins_with_a_routed_guest_works() -> Result<()> {
    begun_by_the_host(Routed, Virtio)
}

#[test]
fn what_the_host_begins_with_a_bridged_guest_works() -> Result<()> {
    begun_by_the_host(Bridged, None)
}

/// A policy that is changed applies to the next frame, in both directions.
#[test]
fn a_rule_opens_a_port_of_the_host_and_closes_it_again() -> Result<()> {
    let there = Guest::new(kind(Bridged, Virtio, false))?;
    let (fence, _shell) = fence(&there.scene, "opened", &[])?;
    let probe = [format!("tcp/192.168.122.1/{PORT}")];
    let try_once = || {
        let outcome = there.probe(&probe)?.pop().context("one outcome")?;
        Ok::<_, anyhow::Error>(outcome.is_reached())
    };
    ensure!(!try_once()?, "it is open at first");
    let set = |options: &[&str]| {
        let mut command = there.scene.host.command(tests::fence::qfence()?);
        command.args(["set", fence.name()]).args(options);
        probe::output(&mut command)
    };
    set(&["--allow", &format!("tcp:192.168.122.1:{PORT}")])?;
    ensure!(try_once()?, "a rule opens it");
    set(&["--deny", "host"])?;
    ensure!(!try_once()?, "it is closed again");
    ensure!(there.scene.arrivals().len() == 1);
    Ok(())
}
