//! The harness without a fence: everything is within reach. These are the positive controls of
//! all tests of refusals.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    guest::{Guest, Options, ipxe},
    listener::{Listener, Listeners},
    namespace::NOBODY,
    probe::{self, Ending},
    world::{HOST_LINK_LOCAL, HOST_V4, RESOLV_CONF, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
const NO_FENCE: [&str; 0] = [];

/// An attempt by TCP and by UDP on each address.
fn tcp_and_udp(addresses: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let both = |address: String| ["tcp", "udp"].map(|way| format!("{way}/{address}/{PORT}"));
    addresses
        .into_iter()
        .flat_map(|address| both(address.to_string()))
        .collect()
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn resolver() -> IpAddr {
    Ipv4Addr::new(127, 0, 0, 53).into()
}

#[test]
fn the_host_reaches_the_internet() -> Result<()> {
    let world = World::new()?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    for address in [SERVER_V4, SERVER_V6] {
        let attempts = tcp_and_udp([address]);
        for outcome in probe::run(&world.host, &as_strs(&attempts))? {
            let greeting = format!("hello from {}\n", SocketAddr::new(address, PORT));
            assert!(outcome.says(&greeting), "{outcome:?}");
        }
    }
    let arrivals = server.arrivals();
    assert_eq!(arrivals.len(), 4, "{arrivals:?}");
    assert!(
        arrivals.iter().any(|arrival| arrival.peer.ip() == HOST_V4),
        "{arrivals:?}"
    );
    assert!(
        arrivals
            .iter()
            .any(|arrival| arrival.local.ip() == SERVER_V6),
        "{arrivals:?}"
    );
    Ok(())
}

#[test]
fn nobody_on_the_host_reaches_every_spelling_of_the_host() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let mut addresses: Vec<String> = World::host_addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    addresses.extend(
        [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:192.0.2.10",
        ]
        .map(str::to_owned),
    );
    addresses.push(format!("{HOST_LINK_LOCAL}%eth0"));
    let mut attempts = tcp_and_udp(addresses);
    attempts.extend(["255.255.255.255", "192.0.2.255"].map(|to| format!("udp/{to}/{PORT}")));
    attempts.push(format!("udp-connected/{HOST_V4}/{PORT}"));
    let before = services.arrivals().len();
    assert_eq!(before, 0);
    for outcome in probe::run_as(NOBODY, &world.host, &as_strs(&attempts))? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    assert_eq!(services.arrivals().len(), attempts.len());
    Ok(())
}

#[test]
fn an_address_added_later_is_within_reach_at_once() -> Result<()> {
    let world = World::new()?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let addresses: [IpAddr; 2] = ["198.18.0.1".parse()?, "2001:db8:9::9".parse()?];
    let mut attempts = vec!["--timeout-ms".to_owned(), "500".to_owned()];
    attempts.extend(tcp_and_udp(addresses));
    let before = probe::run(&world.host, &as_strs(&attempts))?;
    assert!(
        before.iter().all(|outcome| !outcome.is_reached()),
        "{before:#?}"
    );
    for address in addresses {
        world.add_host_address(address, "br0")?;
    }
    for outcome in probe::run(&world.host, &as_strs(&attempts))? {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn multicast_arrives_at_the_members_of_its_group() -> Result<()> {
    let world = World::new()?;
    let groups: [SocketAddr; 2] = ["239.1.2.3:5353".parse()?, "[ff02::1234]:5353".parse()?];
    let members = groups.map(|group| Listener::multicast(&world.host, group, "eth0"));
    let members = members.into_iter().collect::<Result<Vec<_>>>()?;
    probe::run(
        &world.host,
        &["udp/239.1.2.3/5353", "udp/ff02::1234%eth0/5353"],
    )?;
    for member in &members {
        assert_eq!(member.arrivals().len(), 1, "{member:?}");
    }
    Ok(())
}

#[test]
fn the_probe_tells_the_endings_apart() -> Result<()> {
    let world = World::new()?;
    let attempts = [
        "tcp/127.0.0.1/9",
        "udp-connected/127.0.0.1/9",
        "udp/127.0.0.1/9",
        "ping/127.0.0.1",
    ];
    let outcomes = probe::run(&world.host, &attempts)?;
    assert!(outcomes[0].failed_with("ECONNREFUSED"), "{outcomes:?}");
    assert!(outcomes[1].failed_with("ECONNREFUSED"), "{outcomes:?}");
    assert_eq!(outcomes[2].ending, Ending::Sent, "{outcomes:?}");
    assert!(outcomes[3].is_reached(), "{outcomes:?}");
    let mut flood = world.host.command(probe::program()?);
    let output = flood
        .args(["--flood", "1000", "tcp/127.0.0.1/9"])
        .output()?;
    let floods: Vec<probe::Flood> = probe::read_lines(&String::from_utf8(output.stdout)?)?;
    assert_eq!(
        floods[0].endings.get("ECONNREFUSED"),
        Some(&1000),
        "{floods:?}"
    );
    Ok(())
}

#[test]
fn the_resolver_answers_by_udp_and_tcp() -> Result<()> {
    let world = World::new()?;
    let dns = Dns::start(&world.host, resolver(), &[("www.example", SERVER_V4)])?;
    let attempts = [
        "dns/127.0.0.53/www.example",
        "dns-tcp/127.0.0.53/www.example",
    ];
    for outcome in probe::run(&world.host, &attempts)? {
        assert!(outcome.says(&SERVER_V4.to_string()), "{outcome:?}");
    }
    assert_eq!(dns.queries()?.len(), 2, "{:?}", dns.queries());
    Ok(())
}

#[test]
fn the_host_has_an_etc_of_its_own() -> Result<()> {
    let world = World::new()?;
    let read = || {
        world
            .host
            .run(|| Ok(std::fs::read_to_string("/etc/resolv.conf")?))
    };
    let outside = std::fs::read("/etc/resolv.conf").ok();
    assert_eq!(read()?, RESOLV_CONF);
    world.write_resolv_conf("nameserver 192.0.2.1\n")?;
    assert_eq!(read()?, "nameserver 192.0.2.1\n");
    world.write_etc("resolver/stub.conf", "nameserver 127.0.0.54\n")?;
    world.symlink_resolv_conf("/etc/resolver/stub.conf")?;
    assert_eq!(read()?, "nameserver 127.0.0.54\n");
    assert_eq!(std::fs::read("/etc/resolv.conf").ok(), outside);
    Ok(())
}

#[test]
fn the_hosts_cgroups_and_bpf_file_system_are_the_machines() -> Result<()> {
    let world = World::new()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut shared = vec!["/sys/fs/bpf"];
    shared.extend(
        mounts
            .lines()
            .filter(|line| line.contains(" cgroup2 "))
            .filter_map(|line| line.split(' ').nth(1)),
    );
    assert!(shared.len() > 1, "no cgroup2 is mounted:\n{mounts}");
    for mount in shared {
        let outside = std::fs::metadata(mount)?;
        let inside = world.host.run(|| Ok(std::fs::metadata(mount)?))?;
        let id = |data: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt as _;
            (data.dev(), data.ino())
        };
        assert_eq!(id(&inside), id(&outside), "{mount}");
    }
    Ok(())
}

#[test]
fn a_linux_guest_without_a_fence_reaches_everything() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    let dns = Dns::start(&world.host, resolver(), &[("www.example", SERVER_V4)])?;
    // The image is no part of the boot.
    tests::guest::image::image()?;
    let start = Instant::now();
    let mut guest = Guest::boot(&world, &NO_FENCE, &Options::default())?;
    eprintln!("the guest booted in {:?}", start.elapsed());

    let mut of_host = vec!["10.0.2.2".to_owned(), "fec0::2".to_owned()];
    of_host.extend(World::host_addresses().iter().map(ToString::to_string));
    let attempts = tcp_and_udp(of_host);
    for outcome in guest.probe(&as_strs(&attempts))? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    assert_eq!(services.arrivals().len(), attempts.len());
    let attempts = tcp_and_udp([SERVER_V4, SERVER_V6]);
    for outcome in guest.probe(&as_strs(&attempts))? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    assert_eq!(server.arrivals().len(), attempts.len());
    let outcome = guest.attempt("dns/10.0.2.3/www.example")?;
    assert!(outcome.says(&SERVER_V4.to_string()), "{outcome:?}");
    assert!(!dns.queries()?.is_empty());
    for attempt in ["ping/10.0.2.2", "ping/198.51.100.7"] {
        let outcome = guest.attempt(attempt)?;
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    let start = Instant::now();
    assert!(guest.attempt("tcp/10.0.2.2/9")?.failed_with("ECONNREFUSED"));
    eprintln!("one attempt took {:?}", start.elapsed());
    Ok(())
}

#[test]
fn a_port_forwarded_to_a_guest_of_nobody_is_within_reach() -> Result<()> {
    let world = World::new()?;
    let ports = ["tcp", "udp"].map(|protocol| format!("{protocol}:192.0.2.10:2222-:22"));
    let options = Options {
        hostfwd: ports.into(),
        ..Options::default()
    };
    let launcher = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
    ];
    let mut guest = Guest::boot(&world, &launcher, &options)?;
    guest.serve(&["tcp/22", "udp/22"])?;
    for namespace in [&world.internet, &world.host] {
        for outcome in probe::run(namespace, &["tcp/192.0.2.10/2222", "udp/192.0.2.10/2222"])? {
            assert!(outcome.says("hello from the probe"), "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn an_ipxe_guest_without_a_fence_reaches_everything() -> Result<()> {
    let world = World::new()?;
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let host = Listener::http(&world.host, everywhere)?;
    let server = Listener::http(&world.internet, everywhere)?;
    let _dns = Dns::start(&world.host, resolver(), &[("www.example", SERVER_V4)])?;
    let start = Instant::now();
    let pages = [
        ("gateway", "http://10.0.2.2:8080/"),
        ("LAN address", "http://192.0.2.10:8080/"),
        ("bridge", "http://203.0.113.5:8080/"),
        ("internet", "http://198.51.100.7:8080/"),
        ("internet by name", "http://www.example:8080/"),
        ("closed port", "http://10.0.2.2:9/"),
    ];
    let fetches = ipxe::attempt(&NO_FENCE, &world, &pages)?;
    eprintln!("iPXE took {:?}", start.elapsed());
    let (last, open) = fetches.split_last().context("there are pages")?;
    assert!(
        open.iter().all(|(_, fetch)| fetch.is_reached()),
        "{fetches:#?}"
    );
    assert!(last.1.is_refused(), "{fetches:#?}");
    assert_eq!((host.arrivals().len(), server.arrivals().len()), (3, 2));
    Ok(())
}

#[test]
fn a_guest_that_cannot_boot_is_an_error_that_shows_why() -> Result<()> {
    let world = World::new()?;
    let launcher = ["sh", "-c", "echo no such luck >&2; exit 3"];
    let error = Guest::boot(&world, &launcher, &Options::default())
        .err()
        .context("it booted")?;
    assert!(format!("{error:#}").contains("no such luck"), "{error:#}");
    Ok(())
}

#[test]
fn listeners_tell_addresses_of_both_families() -> Result<()> {
    let world = World::new()?;
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let listener = Listener::udp(&world.host, any)?;
    let port = listener.address().port();
    probe::run(&world.host, &[&format!("udp/::1/{port}")])?;
    let arrivals = listener.arrivals();
    assert_eq!(
        arrivals[0].local,
        SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)
    );
    assert_eq!(arrivals[0].bytes, probe::HELLO);
    Ok(())
}
