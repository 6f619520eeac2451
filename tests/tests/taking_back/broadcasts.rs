//! Broadcasts to an address that the host gets later.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe,
    run::{to_end, wait_until},
    shell::Shell,
    world::{SERVER_V4, World},
};

use super::{PORT, ask};

/// Waits so long that nobody counts as following the host any more.
fn outlast_the_pulse() {
    sleep(Duration::from_nanos(qfence_common::pulse::FOLLOWED_FOR_NS) + Duration::from_secs(2));
}

/// A broadcast address that the host gets meanwhile is one before anybody has published that.
const LATE: &str = "10.77.0.255";

/// Gives the host a subnet, of which the broadcast reaches its services, and takes it away.
fn with_late_subnet<T>(world: &World, during: impl FnOnce() -> Result<T>) -> Result<T> {
    world.host_ip("address add 10.77.0.1/24 brd + dev br0")?;
    let made = during();
    world.host_ip("address del 10.77.0.1/24 dev br0")?;
    made
}

/// Without a rule that allows one, no broadcast leaves: the kernel itself fails it, in the moment in which its address
/// becomes one, whoever follows the host.
#[test]
fn without_a_rule_for_broadcasts_no_socket_may_broadcast() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let broadcast = format!("udp/{LATE}/{PORT}");
    let fence = Fence::new("broadcast")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    // Stopped, so that the kernel alone can tell.
    inside.signal(Signal::SIGSTOP)?;
    with_late_subnet(&world, || {
        for _ in 0..4 {
            let outcome = ask(&mut inside, &broadcast)?;
            assert!(outcome.failed_with("EACCES"), "{outcome:?}");
        }
        assert_eq!(services.arrivals(), []);
        // The control: it does arrive without a fence.
        let outcomes = probe::run(&world.host, &["--timeout-ms", "500", &broadcast])?;
        ensure!(outcomes[0].errno.is_none(), "{outcomes:?}");
        wait_until("the broadcast arrives", || {
            Ok(!services.arrivals().is_empty())
        })
    })?;
    let outcome = ask(&mut inside, &format!("udp/{SERVER_V4}/{PORT}"))?;
    ensure!(outcome.is_reached(), "control: {outcome:?}");
    inside.signal(Signal::SIGCONT)?;
    inside.tell("exit")
}

/// Where a rule allows some broadcast, which others there are is not known when nobody follows the host's addresses.
#[test]
fn an_orphan_broadcasts_to_nobody() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let allowed = format!("udp:192.0.2.255:{PORT}");
    let fence = Fence::new("orphan")?.with(&["--user", "nobody", "--allow", &allowed]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let broadcast = format!("udp/{LATE}/{PORT}");
    let elsewhere = format!("udp/{SERVER_V4}/{PORT}");
    for attempt in [&elsewhere, &format!("udp/192.0.2.255/{PORT}")] {
        let outcome = ask(&mut inside, attempt)?;
        ensure!(outcome.is_reached(), "control: {outcome:?}");
    }

    inside.kill_supervisor()?;
    outlast_the_pulse();
    let arrived = services.arrivals().len();
    with_late_subnet(&world, || {
        for _ in 0..4 {
            let outcome = ask(&mut inside, &broadcast)?;
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        }
        assert_eq!(services.arrivals().len(), arrived);
        Ok(())
    })?;
    // Sockets that may not broadcast go on.
    let outcome = ask(&mut inside, &elsewhere)?;
    ensure!(outcome.is_reached(), "control: {outcome:?}");
    let mut logs = world.host.command(qfence()?);
    logs.args(["logs", fence.name()]);
    let shown = to_end(logs)?;
    ensure!(
        shown.stdout.contains("rule deny-unfollowed-broadcast"),
        "{shown:?}"
    );
    let mut rm = world.host.command(qfence()?);
    rm.args(["rm", fence.name()]);
    to_end(rm)?;
    Ok(())
}
