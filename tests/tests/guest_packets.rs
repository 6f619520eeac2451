//! What of a guest's no call tells of: pings, which libslirp sends through sockets of their own, and
//! the answers of a guest whose ports are forwarded to it.

use anyhow::Result;
use tests::{
    echoes,
    fence::Fence,
    guest::{Guest, Options},
    listener::Listeners,
    probe::{self, ProbeResult},
    world::{HOST_V4, SERVER_V4, World},
};

const PORT: u16 = 8080;
const NO_FENCE: [&str; 0] = [];

/// Destinations of the host's for which libslirp asks it, and for which it does not: for the host's
/// alias it answers by itself, its own broadcast address it drops, and a ping of another broadcast
/// address it does not get past the kernel, for its socket is none for broadcasts.
const ASKED: [&str; 2] = ["192.0.2.10", "203.0.113.5"];
const NOT_ASKED: [&str; 4] = ["10.0.2.2", "10.0.2.255", "192.0.2.255", "255.255.255.255"];

fn ping(guest: &mut Guest, addresses: &[&str]) -> Result<Vec<ProbeResult>> {
    let attempts: Vec<_> = addresses.iter().map(|a| format!("ping/{a}")).collect();
    guest.probe(&attempts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The host answers pings of its broadcast addresses, if it is asked.
fn world_that_answers() -> Result<World> {
    let world = World::new()?;
    world
        .host
        .sysctl("net/ipv4/icmp_echo_ignore_broadcasts", "0")?;
    Ok(world)
}

#[test]
fn a_guests_ping_comes_to_the_internet_and_not_to_its_host() -> Result<()> {
    let world = world_that_answers()?;

    // The control: the host is there to be pinged, by the broadcast address as well.
    let control = probe::run(&world.internet, &["ping/192.0.2.10", "ping/192.0.2.255"])?;
    assert!(
        control.iter().all(ProbeResult::is_reached),
        "control: {control:?}"
    );
    let mut open = Guest::boot(&world, &NO_FENCE, &Options::default())?;
    let before = echoes::arrived(&world.host)?;
    for outcome in ping(&mut open, &ASKED)? {
        assert!(outcome.is_reached(), "control: {outcome:?}");
    }
    let after = echoes::arrived(&world.host)?;
    assert_eq!(after.0 - before.0, 2, "control");
    ping(&mut open, &NOT_ASKED)?;
    assert_eq!(echoes::arrived(&world.host)?, after, "control");
    drop(open);

    let fence = Fence::new("guest-ping")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;
    for outcome in ping(&mut guest, &ASKED)? {
        assert!(!outcome.is_reached(), "{outcome:?}");
    }
    ping(&mut guest, &NOT_ASKED)?;
    assert_eq!(echoes::arrived(&world.host)?, after);
    for address in ASKED {
        fence.await_refusal(|refusal| refusal.destination == address)?;
    }

    let before = echoes::arrived(&world.internet)?;
    for outcome in ping(&mut guest, &[&SERVER_V4.to_string(), "192.0.2.1"])? {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    assert_eq!(echoes::arrived(&world.internet)?.0 - before.0, 2);
    Ok(())
}

/// From the host by its loopback and its LAN address, and from another machine on the LAN. QEMU
/// forwards no port of an IPv6 address; passt does.
#[test]
fn ten_megabytes_pass_both_ways_through_forwarded_ports() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    // A UDP port of the guest's for each: libslirp tells the answers apart by that alone.
    let options = Options {
        hostfwd: [
            "tcp:127.0.0.1:2222-:7",
            "tcp:192.0.2.10:2223-:7",
            "udp:127.0.0.1:2224-:7",
            "udp:192.0.2.10:2225-:8",
        ]
        .map(str::to_owned)
        .into(),
        ..Options::default()
    };
    let loopback = ["bulk-tcp/127.0.0.1/2222", "bulk-udp/127.0.0.1/2224"];
    let lan = ["bulk-tcp/192.0.2.10/2223", "bulk-udp/192.0.2.10/2225"];
    let fence = Fence::new("forwards")?.with(&["--user", "nobody"]);
    for launcher in [Vec::new(), fence.launcher()] {
        let mut guest = Guest::boot(&world, &launcher, &options)?;
        guest.serve(&["echo-tcp/7", "echo-udp/7", "echo-udp/8"])?;
        for (from, to) in [
            (&world.host, loopback),
            (&world.host, lan),
            (&world.internet, lan),
        ] {
            for outcome in probe::run(from, &["--timeout-ms", "120000", to[0], to[1]])? {
                let whole = outcome.says("10000000 bytes came back");
                assert!(whole, "started by {launcher:?}: {outcome:?}");
            }
        }
    }
    // What was answered was let in, and was no refusal; nothing else was opened.
    assert_eq!(fence.refusals()?, []);
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// The memory of who spoke first is for answers to that port alone.
#[test]
fn a_peer_that_spoke_first_opens_no_other_port() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let options = Options {
        hostfwd: vec!["udp:192.0.2.10:2225-:7".into()],
        ..Options::default()
    };
    let fence = Fence::new("spoke-first")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &options)?;
    guest.serve(&["udp/7"])?;
    let spoken = probe::run(&world.host, &["udp/192.0.2.10/2225"])?;
    assert!(spoken[0].says("hello from the probe"), "{spoken:?}");
    for way in ["udp", "tcp"] {
        let control = probe::run(&world.host, &[&format!("{way}/{HOST_V4}/{PORT}")])?;
        assert!(control[0].is_reached(), "control: {control:?}");
    }
    let before = services.arrivals().len();
    for way in ["udp", "tcp", "udp-connected"] {
        let outcome = guest.attempt(&format!("{way}/{HOST_V4}/{PORT}"))?;
        assert!(!outcome.is_reached(), "{outcome:?}");
    }
    assert_eq!(services.arrivals().len(), before);
    Ok(())
}
