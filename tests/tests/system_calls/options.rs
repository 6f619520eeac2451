//! Socket options that the kernel sets without asking a program.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use anyhow::Result;
use socket2::{Domain, Socket, Type};
use tests::{
    fence::Fence,
    probe::{self, ProbeResult},
    run::{fenced, to_end},
    world::World,
};

use super::Scene;

/// The broadcast address of the host's LAN.
const BROADCAST: &str = "192.0.2.255";

/// Ways to set an option without the kernel asking a program.
const UNASKED: [&str; 3] = ["compat", "socketcall", "ring"];

fn broadcasts() -> Vec<String> {
    UNASKED
        .map(|manner| format!("ping-by/{manner}/{BROADCAST}"))
        .into()
}

#[test]
fn broadcast_pings_do_not_reach_the_host_whatever_call_allows_them() -> Result<()> {
    let scene = Scene::new(&[])?;
    let seen = scene.pings(|| {
        for outcome in scene.outside(&broadcasts())? {
            assert!(outcome.is_reached(), "control: {outcome:?}");
        }
        Ok(())
    })?;
    assert_eq!(seen, 3, "control");
    let mut outcomes = Vec::new();
    let seen = scene.pings(|| {
        outcomes = scene.inside(&broadcasts())?;
        Ok(())
    })?;
    assert_eq!(seen, 0, "{outcomes:?}");
    // Rings of io_uring cannot be made in a fence.
    for (outcome, errno) in outcomes.iter().zip(["EPERM", "EPERM", "ENOSYS"]) {
        assert!(outcome.failed_with(errno), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn compat_calls_join_no_groups() -> Result<()> {
    let scene = Scene::new(&[])?;
    let joins = [
        (0, [35, 37, 38, 39, 40, 41].as_slice()),
        (41, &[20, 27]),
        (0, &[42, 43, 44, 46, 47, 48]),
        (41, &[42, 43, 44, 46, 47, 48]),
    ];
    let attempts: Vec<String> = joins
        .iter()
        .flat_map(|(level, names)| names.iter().map(move |name| (level, name)))
        .map(|(level, name)| format!("option/compat/{level}/{name}"))
        .collect();
    for outcome in scene.outside(&attempts)? {
        assert!(!outcome.failed_with("EPERM"), "control: {outcome:?}");
    }
    for outcome in scene.inside(&attempts)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    Ok(())
}

/// If a value is longer than a page, the kernel reads the number again after the program at setsockopt. A zero may have become
/// another number by then, so it counts as set. Other options of that length are not restricted.
#[test]
fn a_long_value_counts_as_set() -> Result<()> {
    let scene = Scene::new(&[])?;
    let broadcast = [format!("ping-by/long/{BROADCAST}")];
    let outside = scene.outside(&broadcast)?;
    assert!(outside[0].is_reached(), "control: {outside:?}");
    let inside = scene.inside(&broadcast)?;
    assert!(inside[0].failed_with("EPERM"), "{inside:?}");
    let reuse = ["option/long/1/2".to_owned()];
    for outcome in [scene.outside(&reuse)?, scene.inside(&reuse)?].concat() {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn other_options_can_be_set_by_compat_calls() -> Result<()> {
    let scene = Scene::new(&[])?;
    // SO_REUSEADDR, IP_TOS, IPV6_MULTICAST_HOPS, and the number of TCP_NODELAY at the level of UDP.
    let others = ["1/2", "0/1", "41/18", "17/1"];
    let attempts: Vec<_> = ["native", "compat"]
        .iter()
        .flat_map(|manner| others.map(|option| format!("option/{manner}/{option}")))
        .collect();
    let outside = scene.outside(&attempts)?;
    let inside = scene.inside(&attempts)?;
    assert!(outside.iter().any(ProbeResult::is_reached), "{outside:?}");
    for (outside, inside) in outside.iter().zip(&inside) {
        assert_eq!(
            (outside.ending, &outside.errno),
            (inside.ending, &inside.errno),
            "{inside:?}"
        );
    }
    Ok(())
}

/// A socket of the fence that shares a port with a service of the host could be mistaken for the only socket of the port. The
/// kernel may deliver to the service instead. The programs recognise such a socket only if they see its option.
#[test]
fn compat_calls_make_no_socket_beside_a_service_of_the_host() -> Result<()> {
    const PORT: u16 = 9200;
    let world = World::new()?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into();
    let (_tcp, _udp) = world.host.run(|| {
        let tcp = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        tcp.set_reuse_port(true)?;
        tcp.bind(&at)?;
        tcp.listen(16)?;
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        udp.set_reuse_address(true)?;
        udp.bind(&at)?;
        Ok((tcp, udp))
    })?;
    let kinds = ["tcp", "udp"];
    let by = |manner: &str| kinds.map(|kind| format!("beside/{manner}/{kind}/127.0.0.1/{PORT}"));
    let all = ["native", "compat"].map(by).concat();
    // Only sockets of one user, root here, share a TCP port.
    let inside = |options: &[&str]| -> Result<Vec<ProbeResult>> {
        let fence = Fence::new("beside")?.with(options);
        probe::run_command(fence.command(&world.host, probe::program()?).args(&all))
    };
    let outside = probe::run_command(world.host.command(probe::program()?).args(&all))?;
    for made in [outside, inside(&["--allow-compat-sockopt"])?] {
        assert!(
            made.iter().all(ProbeResult::is_reached),
            "control: {made:?}"
        );
    }
    let made = inside(&[])?;
    assert!(made[0].is_reached() && made[1].is_reached(), "{made:?}");
    for compat in &made[2..] {
        assert!(compat.failed_with("EADDRINUSE"), "{made:?}");
    }
    let reuse_port = ["option/compat/1/15".to_owned()];
    let fence = Fence::new("reuse-port")?;
    let mut command = fence.command(&world.host, probe::program()?);
    let made = probe::run_command(command.args(&reuse_port))?;
    assert!(made[0].failed_with("ENOPROTOOPT"), "{made:?}");
    Ok(())
}

/// If options can be set that no program sees, any socket may share its port, so none counts as the fence's own.
#[test]
fn with_compat_options_nothing_is_the_fences_own() -> Result<()> {
    let world = World::new()?;
    let attempts = ["plain", "thread"].map(|manner| format!("pair/127.0.0.1/127.0.0.1/{manner}"));
    for (options, is_open) in [
        (&["--user", "nobody", "--allow", "self"][..], true),
        (
            &[
                "--user",
                "nobody",
                "--allow",
                "self",
                "--allow-compat-sockopt",
            ],
            false,
        ),
    ] {
        let fence = Fence::new("own-compat")?.with(options);
        let mut command = fence.command(&world.host, probe::program()?);
        for outcome in probe::run_command(command.args(&attempts))? {
            assert_eq!(outcome.is_reached(), is_open, "{outcome:?}");
            assert_eq!(outcome.failed_with("ECONNREFUSED"), !is_open, "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn who_asks_for_it_gets_compat_options_and_no_more() -> Result<()> {
    let scene = Scene::new(&["--allow-compat-sockopt"])?;
    // The packet is dropped, but not the copy that the kernel has made for the host before.
    let seen = scene.pings(|| scene.inside(&broadcasts()).map(drop))?;
    assert_eq!(seen, 3);
    let rest = ["keys/native/call-out".into(), "keys/compat/call-out".into()];
    for outcome in scene.inside(&rest)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    Ok(())
}

/// If the policy allows no broadcast, SO_BROADCAST on a UDP socket has no effect and no error, whatever the length of its
/// value.
#[test]
fn a_long_value_makes_no_broadcaster() -> Result<()> {
    const SET: &str = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                       for length in 4, 5000:\n\
                       \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, (1).to_bytes(length, 'little'))\n\
                       \x20   print(s.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST), end=' ')";
    let words = ["/usr/bin/python3", "-c", SET];
    let mut outside = Command::new(words[0]);
    outside.args(&words[1..]);
    assert_eq!(to_end(outside)?.stdout, "1 1 ", "control");
    let fence = Fence::new("long-value")?.with(&["--user", "nobody"]);
    assert_eq!(to_end(fenced(&fence, &words))?.stdout, "0 0 ");
    Ok(())
}
