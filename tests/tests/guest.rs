//! A real guest, through QEMU's user network: the host is gone, the internet is not.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    fence::Fence,
    guest::{Guest, Options},
    listener::Listeners,
    probe::{self, ProbeResult},
    world::{GATEWAY_V4, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
const NO_FENCE: [&str; 0] = [];

/// The host as a guest can name it: by the user network's alias, which is the host's loopback, by
/// its LAN address and by that of another device; in both families.
const HOST: [&str; 6] = [
    "10.0.2.2",
    "192.0.2.10",
    "203.0.113.5",
    "fec0::2",
    "2001:db8:1::10",
    "2001:db8:3::5",
];

/// A connection that is refused and not dropped is refused within this many milliseconds: far more
/// than it takes, far less than any time-out. The best of three counts, for a guest under emulation
/// may have to wait for the machine.
const AT_ONCE_MS: f64 = 100.0;

fn attempts(ways: &[&str], addresses: &[&str]) -> Vec<String> {
    let by = |address: &&str| -> Vec<String> {
        ways.iter()
            .map(|way| format!("{way}/{address}/{PORT}"))
            .collect()
    };
    addresses.iter().flat_map(by).collect()
}

fn probe(guest: &mut Guest, ways: &[&str], addresses: &[&str]) -> Result<Vec<ProbeResult>> {
    let attempts = attempts(ways, addresses);
    let mut arguments = vec!["--timeout-ms", "1000"];
    arguments.extend(attempts.iter().map(String::as_str));
    guest.probe(&arguments)
}

/// Waits until `condition` holds, for at most `limit`.
fn await_that(limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

#[test]
fn a_fenced_guest_has_the_internet_and_not_its_host() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let server = Listeners::everywhere(&world.internet, PORT)?;

    // The control: the same guest without the fence reaches it all.
    let mut open = Guest::boot(&world, &NO_FENCE, &Options::default())?;
    let reached = probe(&mut open, &["tcp", "udp"], &HOST)?;
    for outcome in &reached {
        assert!(outcome.says("hello from"), "control: {outcome:?}");
    }
    let before = services.arrivals().len();
    assert_eq!(before, reached.len());
    drop(open);

    let fence = Fence::new("guest")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;
    for address in HOST {
        let mut fastest = f64::INFINITY;
        for outcome in probe(&mut guest, &["tcp", "tcp", "tcp"], &[address])? {
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
            fastest = fastest.min(outcome.ms);
        }
        assert!(
            fastest < AT_ONCE_MS,
            "{address} is refused after {fastest} ms"
        );
    }
    for outcome in probe(&mut guest, &["udp"], &HOST)? {
        assert!(!outcome.is_reached(), "{outcome:?}");
    }
    for outcome in probe(
        &mut guest,
        &["tcp", "udp"],
        &[&SERVER_V4.to_string(), &SERVER_V6.to_string()],
    )? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    let after = services.arrivals();
    assert_eq!(after.len(), before, "{:?}", &after[before..]);
    assert_eq!(server.arrivals().len(), 4);

    // Each of the twelve is on record, the alias as what it stands for.
    for address in [
        "127.0.0.1",
        "192.0.2.10",
        "203.0.113.5",
        "::1",
        "2001:db8:1::10",
        "2001:db8:3::5",
    ] {
        for protocol in ["tcp", "udp"] {
            let refusal = fence.await_refusal(|refusal| {
                refusal.destination == address && refusal.protocol == protocol
            })?;
            assert_eq!(
                (refusal.port, refusal.rule.as_str()),
                (PORT, "deny host"),
                "{refusal:?}"
            );
            assert_eq!(refusal.command, "qemu-system-x86", "{refusal:?}");
        }
    }
    Ok(())
}

#[test]
fn a_port_forwarded_to_a_fenced_guest_is_reached_from_the_host() -> Result<()> {
    let world = World::new()?;
    let options = Options {
        hostfwd: ["tcp:127.0.0.1:2222-:22", "tcp:192.0.2.10:2223-:22"]
            .map(str::to_owned)
            .into(),
        ..Options::default()
    };
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fence = Fence::new("hostfwd")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &options)?;
    guest.serve(&["tcp/22"])?;
    let from_host = probe::run(&world.host, &["tcp/127.0.0.1/2222", "tcp/192.0.2.10/2223"])?;
    let from_lan = probe::run(&world.internet, &["tcp/192.0.2.10/2223"])?;
    for outcome in from_host.iter().chain(&from_lan) {
        assert!(outcome.says("hello from the probe"), "{outcome:?}");
    }
    // What was let in is no way out.
    for outcome in probe(&mut guest, &["tcp"], &HOST)? {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// A resolver on loopback, one on the port beside it, and one for later.
#[test]
fn the_hosts_resolver_is_reached_on_its_port_alone_and_followed() -> Result<()> {
    let world = World::new()?;
    let old: IpAddr = Ipv4Addr::new(127, 0, 0, 53).into();
    let new: IpAddr = Ipv4Addr::new(127, 0, 0, 54).into();
    let old_dns = Dns::start(&world.host, old, &[("www.example", SERVER_V4)])?;
    let new_dns = Dns::start(&world.host, new, &[("www.example", GATEWAY_V4)])?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fence = Fence::new("dns")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;

    let outcome = guest.attempt("dns/10.0.2.3/www.example")?;
    assert!(outcome.says(&SERVER_V4.to_string()), "{outcome:?}");
    let answered = old_dns.queries()?.len();
    assert!(answered > 0);

    // The nameserver's other ports are the host's like any. A libslirp of today (4.7) has no way
    // to them but 53; any other process in the fence would.
    let other_ports = [
        format!("tcp/127.0.0.53/{PORT}"),
        format!("udp/127.0.0.53/{PORT}"),
    ];
    for outcome in probe::run(&world.host, &other_ports.each_ref().map(String::as_str))? {
        assert!(outcome.is_reached(), "control: {outcome:?}");
    }
    let before = services.arrivals().len();
    assert!(!guest.attempt(&format!("tcp/10.0.2.3/{PORT}"))?.is_reached());
    let inside = Fence::new("dns-ports")?.with(&["--user", "nobody"]);
    for outcome in probe::run_command(
        inside
            .command(&world.host, probe::program()?)
            .args(&other_ports),
    )? {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(services.arrivals().len(), before);

    // The file is replaced: the new one answers. That QEMU notices is libslirp's part, which looks at
    // the file at most once a second.
    world.write_resolv_conf("nameserver 127.0.0.54\n")?;
    let followed = await_that(Duration::from_secs(10), || {
        Ok(guest
            .attempt("dns/10.0.2.3/www.example")?
            .says(&GATEWAY_V4.to_string()))
    })?;
    assert!(followed, "{:?}", guest.logs());
    assert!(!new_dns.queries()?.is_empty());

    // The old one is refused now, to anybody in the fence.
    let old_answers = old_dns.queries()?.len();
    let inside = Fence::new("dns-after")?.with(&["--user", "nobody"]);
    let attempts = [
        "dns/127.0.0.53/www.example",
        "dns-tcp/127.0.0.53/www.example",
    ];
    for outcome in probe::run_command(
        inside
            .command(&world.host, probe::program()?)
            .args(attempts),
    )? {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    assert_eq!(old_dns.queries()?.len(), old_answers);
    Ok(())
}

#[test]
fn an_address_that_comes_up_is_refused_and_one_that_goes_is_remote_again() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    let fence = Fence::new("address")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;

    for (address, device) in [("198.51.100.7", "br0"), ("2001:db8:2::7", "br0")] {
        let attempt = format!("tcp/{address}/{PORT}");
        // At first it is the internet's.
        let outcome = guest.attempt(&attempt)?;
        assert!(outcome.says("hello from"), "{outcome:?}");
        let arrived = server.arrivals().len();

        world.add_host_address(address.parse()?, device)?;
        thread::sleep(Duration::from_secs(1));
        let control = probe::run(&world.host, &[&attempt])?;
        assert!(control[0].is_reached(), "control: {control:?}");
        let before = services.arrivals().len();
        for way in ["tcp", "udp"] {
            let outcome = guest.attempt(&format!("{way}/{address}/{PORT}"))?;
            assert!(!outcome.is_reached(), "{outcome:?}");
        }
        assert_eq!(services.arrivals().len(), before);
        fence
            .await_refusal(|refusal| refusal.destination == address && refusal.protocol == "tcp")?;

        let length = if address.contains(':') { 128 } else { 32 };
        world.host_ip(&format!("address del {address}/{length} dev {device}"))?;
        let reached = await_that(Duration::from_secs(5), || {
            Ok(guest.attempt(&attempt)?.is_reached())
        })?;
        assert!(reached, "{address} is not reached as the internet's again");
        assert!(server.arrivals().len() > arrived);
    }
    Ok(())
}

#[test]
fn a_guest_that_floods_is_logged_or_counted_to_the_last() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("guest-flood")?.with(&["--user", "nobody"]);
    let mut guest = Guest::boot(&world, &fence.launcher(), &Options::default())?;
    let flood = guest.flood(200, &format!("tcp/192.0.2.10/{PORT}"))?;
    assert_eq!(flood.endings.get("ECONNREFUSED"), Some(&200), "{flood:?}");
    let counted = || -> Result<u64> { Ok(fence.refusals()?.iter().map(|line| line.count).sum()) };
    let logged = await_that(Duration::from_secs(10), || Ok(counted()? >= 200))?;
    assert!(logged, "{} of 200 are in the log", counted()?);
    let first = fence.refusals()?.into_iter().next().context("a refusal")?;
    assert_eq!(first.destination, "192.0.2.10");
    Ok(())
}
