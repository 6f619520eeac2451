//! A socket pair over TCP, which libslirp makes for `guestfwd=…-cmd:` and `smb=`, works in a fence; nothing like it does.

use std::net::SocketAddr;

use anyhow::Result;
use tests::{
    fence::Fence,
    listener::{Listener, Listeners},
    probe::{self, ProbeResult},
    world::World,
};

/// A service of the host.
const PORT: u16 = 8080;

/// Makes pairs in a fence, and without one.
fn pairs(world: &World, options: &[&str], pairs: &[&str]) -> Result<[Vec<ProbeResult>; 2]> {
    let fence = Fence::new("pair")?
        .with(&["--user", "nobody"])
        .with(options);
    let fenced = probe::run_command(fence.command(&world.host, probe::program()?).args(pairs))?;
    Ok([fenced, probe::run(&world.host, pairs)?])
}

const WHOLE: &str = "there and back";

#[test]
fn a_thread_connects_to_its_own_new_listener() -> Result<()> {
    let world = World::new()?;
    let all = [
        "pair/127.0.0.1/127.0.0.1/plain",
        "pair/127.0.0.9/127.0.0.9/plain",
        "pair/::1/::1/plain",
        "pair/0.0.0.0/127.0.0.1/plain",
        "pair/127.0.0.1/0.0.0.0/plain",
        "pair/0.0.0.0/0.0.0.0/plain",
        "pair/::/::/plain",
        "pair/::/::1/plain",
        "pair/::/::ffff:127.0.0.1/plain",
        "pair/127.0.0.1/127.0.0.1/mptcp",
    ];
    for options in [&[][..], &["--profile", "locked"]] {
        let [fenced, control] = pairs(&world, options, &all)?;
        for outcome in control.iter().chain(&fenced) {
            assert!(outcome.says(WHOLE), "{options:?}: {outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn a_pair_is_no_attempt() -> Result<()> {
    let world = World::new()?;
    for options in [&[][..], &["--monitor"]] {
        let fence = Fence::new("pair-log")?
            .with(&["--user", "nobody"])
            .with(options);
        let attempts = ["pair/127.0.0.1/127.0.0.1/plain", "tcp/127.0.0.1/1"];
        let made =
            probe::run_command(fence.command(&world.host, probe::program()?).args(attempts))?;
        assert!(made[0].says(WHOLE), "{made:?}");
        // The other attempt is the control.
        fence.await_refusal(|line| line.port == 1)?;
        let refusals = fence.refusals()?;
        assert!(refusals.iter().all(|line| line.port == 1), "{refusals:?}");
    }
    Ok(())
}

#[test]
fn what_is_not_quite_a_pair_is_refused() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let manners = [
        "thread",
        "lent",
        "late",
        "older",
        // QEMU's monitor, VNC, gdbstub and hostfwd, which can have port 0 as well.
        "listener-reuse-address",
        "listener-reuse-port",
        "client-reuse-address",
        // libslirp's connections for a guest.
        "client-out-of-band",
    ];
    for (listen, connect) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let all = manners.map(|manner| format!("pair/{listen}/{connect}/{manner}"));
        let [fenced, control] = pairs(&world, &[], &all.each_ref().map(String::as_str))?;
        for (outcome, control) in fenced.iter().zip(&control) {
            assert!(control.says(WHOLE), "control: {control:?}");
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        }
    }
    // Other addresses of the host's.
    let [fenced, control] = pairs(&world, &[], &["pair/192.0.2.10/192.0.2.10/plain"])?;
    assert!(control[0].says(WHOLE), "control: {control:?}");
    assert!(fenced[0].failed_with("ECONNREFUSED"), "{fenced:?}");
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// The listener of the pair is on another address of the host's port, so the connection leads to the host's service.
#[test]
fn a_service_on_the_same_port_is_not_reached() -> Result<()> {
    let world = World::new()?;
    let service = Listener::tcp(&world.host, SocketAddr::from(([127, 0, 0, 1], PORT)))?;
    let all = [
        format!("pair/127.0.0.2/127.0.0.1/port={PORT}"),
        format!("pair/192.0.2.10/127.0.0.1/port={PORT}"),
    ];
    let fence = Fence::new("pair-port")?.with(&["--user", "nobody"]);
    let program = probe::program()?;
    let made = probe::run_command(fence.command(&world.host, program).args(&all))?;
    for outcome in &made {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(service.arrivals(), []);
    let control = probe::run(&world.host, &[&format!("tcp/127.0.0.1/{PORT}")])?;
    assert!(control[0].says("hello from"), "control: {control:?}");
    Ok(())
}
