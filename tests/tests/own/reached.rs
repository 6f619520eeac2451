//! The sockets that a rule for `self` opens, and those that it does not.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};
use tests::{listener::Listeners, probe, world::World};

use super::{HOST, INSIDE, nobody, serve, stop};

/// The host by loopback, by its LAN address and by another device's, in both families.
const ADDRESSES: [&str; 7] = [
    "127.0.0.1",
    "0.0.0.0",
    "192.0.2.10",
    "203.0.113.5",
    "::1",
    "2001:db8:1::10",
    "::ffff:127.0.0.1",
];

#[test]
fn a_rule_for_self_opens_the_fences_own_listeners_and_nothing_of_the_hosts() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, HOST)?;
    let inside = format!("tcp/{INSIDE} echo-mptcp/{}", INSIDE + 1);
    for (rule, is_open) in [
        (Some("self"), true),
        (Some("tcp:self"), true),
        (Some("tcp:self:4999-5001"), true),
        (Some("self:5000,5001"), true),
        (Some("tcp:self:4000-4999"), false),
        (Some("udp:self:5000,5001"), false),
        (None, false),
    ] {
        let rules: Vec<&str> = rule.into_iter().collect();
        let fence = nobody("self", &rules)?;
        let mut shell = serve(&world, &fence, &inside)?;
        for address in ADDRESSES {
            let attempts = [
                format!("tcp/{address}/{INSIDE}"),
                format!("tcp/{address}/{}", INSIDE + 1),
                format!("tcp/{address}/{HOST}"),
            ];
            let made = shell.attempt(&[
                "--timeout-ms",
                "300",
                &attempts[0],
                &attempts[1],
                &attempts[2],
            ])?;
            if is_open {
                assert!(made[0].says("hello from the probe"), "{rule:?}: {made:?}");
                assert!(!made[1].failed_with("ECONNREFUSED"), "{rule:?}: {made:?}");
            } else {
                assert!(made[0].failed_with("ECONNREFUSED"), "{rule:?}: {made:?}");
                assert!(made[1].failed_with("ECONNREFUSED"), "{rule:?}: {made:?}");
            }
            assert!(made[2].failed_with("ECONNREFUSED"), "{rule:?}: {made:?}");
        }
        stop(shell)?;
    }
    assert_eq!(services.arrivals(), []);
    Ok(())
}

#[test]
fn guests_and_shared_ports_are_not_self() -> Result<()> {
    let world = World::new()?;
    let fence = nobody("marks", &["self"])?;
    let pairs = [
        ("thread", true),
        ("client-reuse-address", true),
        ("listener-reuse-address", true),
        // libslirp's connections for a guest.
        ("client-out-of-band", false),
        ("listener-reuse-port", false),
    ];
    let attempts = pairs.map(|(manner, _)| format!("pair/127.0.0.1/127.0.0.1/{manner}"));
    let program = probe::program()?;
    let made = probe::run_command(fence.command(&world.host, program).args(&attempts))?;
    for ((manner, is_open), outcome) in pairs.iter().zip(&made) {
        assert_eq!(
            outcome.says("there and back"),
            *is_open,
            "{manner}: {outcome:?}"
        );
        assert_eq!(
            outcome.failed_with("ECONNREFUSED"),
            !is_open,
            "{manner}: {outcome:?}"
        );
    }
    Ok(())
}

#[test]
fn udp_of_self_works_both_ways_on_the_ports_of_the_rule() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, HOST)?;
    let rule = format!("udp:self:{INSIDE},{HOST}");
    let fence = nobody("udp", &[&rule])?;
    let mut shell = serve(
        &world,
        &fence,
        &format!("echo-udp/{INSIDE} echo-udp/{}", INSIDE + 1),
    )?;
    for address in ["127.0.0.1", "192.0.2.10", "::1"] {
        let own = [
            format!("udp/{address}/{INSIDE}"),
            format!("udp/{address}/{}", INSIDE + 1),
            format!("udp/{address}/{HOST}"),
        ];
        let made = shell.attempt(&["--timeout-ms", "500", &own[0], &own[1], &own[2]])?;
        assert!(made[0].is_reached(), "{made:?}");
        assert!(made[1].failed_with("ECONNREFUSED"), "{made:?}");
        assert!(made[2].failed_with("ECONNREFUSED"), "{made:?}");
    }
    assert_eq!(services.arrivals(), []);
    stop(shell)
}

/// How many connections the kernel of the host accepted with data in their SYN.
fn fast_opens(world: &World) -> Result<u64> {
    let text = probe::output(world.host.command("cat").arg("/proc/net/netstat"))?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        lines.next().context("names")?,
        lines.next().context("values")?,
    );
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let found = pairs.find(|(name, _)| *name == "TCPFastOpenPassive");
    Ok(found.context("no such counter")?.1.parse()?)
}

/// A listener accepts data in a SYN at once. So the fence sends none, and the client repeats it without.
#[test]
fn no_data_goes_with_a_syn_to_self() -> Result<()> {
    let world = World::new()?;
    // Client and server, without cookies, for all listeners.
    world.host.sysctl("net/ipv4/tcp_fastopen", "1543")?;
    let attempt = format!("tcp-fastopen/127.0.0.1/{INSIDE}");
    for (rule, opens) in [("tcp:host", 1), ("self", 0)] {
        let fence = nobody("fast", &[rule])?;
        let mut shell = serve(&world, &fence, &format!("tcp/{INSIDE}"))?;
        let before = fast_opens(&world)?;
        let made = shell.attempt(&[&attempt])?;
        assert!(made[0].says("hello from the probe"), "{rule}: {made:?}");
        assert_eq!(fast_opens(&world)? - before, opens, "{rule}");
        stop(shell)?;
    }
    Ok(())
}

/// A listener that the host passed to the fence is the host's.
#[test]
fn a_listener_made_outside_is_not_self() -> Result<()> {
    let world = World::new()?;
    let listener = world
        .host
        .run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, INSIDE))?))?;
    let fence = nobody("outside", &["self"])?;
    let made = probe::run_command(
        fence
            .command(&world.host, probe::program()?)
            .arg(format!("tcp/127.0.0.1/{INSIDE}")),
    )?;
    assert!(made[0].failed_with("ECONNREFUSED"), "{made:?}");
    drop(listener);
    Ok(())
}
