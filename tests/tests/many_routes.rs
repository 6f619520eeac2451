//! A host that routes to 20,000 networks: its own addresses are found and followed as on any other, and what changes of
//! the others is not announced to the supervisor. Nor is each change of a device.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    listener::Listeners,
    probe::ProbeResult,
    run::wait_until,
    shell::Shell,
    world::{GATEWAY_V4, World},
};

const PORT: u16 = 8080;
/// Below 25,600.
const ROUTES: u32 = 20_000;
/// In one of the networks that routes lead to.
const LATE: IpAddr = IpAddr::V4(Ipv4Addr::new(44, 0, 7, 1));

/// A batch of `ip`'s that does this to all routes.
fn batch(verb: &str) -> Result<String> {
    let mut lines = String::new();
    for index in 0..ROUTES {
        let network = Ipv4Addr::from(u32::from(Ipv4Addr::new(44, 0, 0, 0)) + index * 256);
        writeln!(lines, "route {verb} {network}/24 via {GATEWAY_V4}")?;
    }
    Ok(lines)
}

/// How often the supervisor's first thread has waited for something.
fn waits(shell: &Shell) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", shell.started()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("no count")?.trim().parse()?)
}

#[test]
fn the_host_is_found_and_followed_among_20000_routes() -> Result<()> {
    let world = World::new()?;
    world.host.ip_batch(&batch("add")?)?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let fence = Fence::new("routes")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let own: Vec<_> = World::host_addresses()
        .iter()
        .map(|address| format!("udp/{address}/{PORT}"))
        .collect();
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    let is_refused = |outcome: &ProbeResult| outcome.failed_with("ECONNREFUSED");
    let outcomes = shell.attempt(&own)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");

    let late = format!("udp/{LATE}/{PORT}");
    // The control: it is no address of the host's yet.
    let before = shell.attempt(&[&late])?;
    assert!(!is_refused(&before[0]), "{before:?}");
    world.add_host_address(LATE, "lo")?;
    wait_until("the new address is refused", || {
        Ok(is_refused(&shell.attempt(&[&late])?[0]))
    })?;
    world.host_ip(&format!("address del {LATE}/32 dev lo"))?;
    wait_until("it is no address of the host's any more", || {
        Ok(!is_refused(&shell.attempt(&[&late])?[0]))
    })
}

/// Makes many changes; the supervisor is woken fewer times, and an address wakes it afterwards.
fn assert_wakes(name: &str, most: u64, change: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let world = World::new()?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let fence = Fence::new(name)?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let before = waits(&shell)?;
    change(&world)?;
    let woken = waits(&shell)? - before;
    assert!(woken < most, "{woken} times");
    // The control: an address wakes it.
    world.add_host_address(LATE, "lo")?;
    wait_until("the new address is refused", || {
        let outcomes = shell.attempt(&[&format!("udp/{LATE}/{PORT}")])?;
        Ok(outcomes[0].failed_with("ECONNREFUSED"))
    })
}

#[test]
fn routes_to_elsewhere_wake_no_supervisor() -> Result<()> {
    // It has more to do than to follow routes, but nothing for each of 40,000 changes.
    assert_wakes("wakes", 400, |world| {
        for verb in ["add", "del"] {
            world.host.ip_batch(&batch(verb)?)?;
        }
        Ok(())
    })
}

#[test]
fn changes_of_a_device_are_read_together() -> Result<()> {
    // Each is a process of its own, so that the supervisor could be woken by each of them.
    assert_wakes("together", 400, |world| {
        for index in 0..1000 {
            world.host_ip(&format!("link set dev lo mtu {}", 60_000 + index % 2))?;
        }
        Ok(())
    })
}
