//! A service of the host takes the port of a listener in the fence at any moment: no connection reaches it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};
use tests::{
    fence::Fence,
    probe::{self, Race},
    world::World,
};

use super::nobody;

/// A service of the host that takes a port whenever the port is free.
#[derive(Debug, Default)]
struct Rival {
    bound: u64,
    arrived: u64,
}

/// Runs the race in a fence, and at the same time a rival on the host.
fn race(world: &World, fence: &Fence, race: &str, ms: u64) -> Result<(Race, Rival)> {
    let (kind, port) = race.split_once('/').context("KIND/PORT")?;
    let is_tcp = kind.starts_with("tcp");
    // A group has one address.
    let address = if kind == "tcp-group" {
        Ipv4Addr::LOCALHOST
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    let at = SocketAddr::from((address, port.parse()?));
    let over = AtomicBool::new(false);
    let (bound, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
    let listen = || -> io::Result<Socket> {
        let socket = Socket::new(
            Domain::IPV4,
            if is_tcp { Type::STREAM } else { Type::DGRAM },
            None,
        )?;
        match kind {
            "tcp-group" => socket.set_reuse_port(true)?,
            "udp" => {}
            _ => socket.set_reuse_address(true)?,
        }
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        if is_tcp {
            socket.listen(64)?;
        }
        Ok(socket)
    };
    let take = |socket: &Socket| {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
        let is_any = if is_tcp {
            socket.accept().is_ok()
        } else {
            socket.recv(&mut buffer).is_ok()
        };
        arrived.fetch_add(is_any.into(), Ordering::Relaxed);
    };
    let is_permanent = kind == "tcp-group" || kind == "udp-shared";
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            world.host.run(|| {
                while !over.load(Ordering::Relaxed) {
                    let Ok(socket) = listen() else {
                        continue;
                    };
                    bound.fetch_add(1, Ordering::Relaxed);
                    let close = Instant::now() + Duration::from_micros(200);
                    while Instant::now() < close || is_permanent && !over.load(Ordering::Relaxed) {
                        take(&socket);
                    }
                    take(&socket);
                    drop(socket);
                    thread::sleep(Duration::from_micros(100));
                }
                Ok(())
            })
        });
        let mut command = fence.command(&world.host, probe::program()?);
        command.args(["--for-ms", &ms.to_string(), "--race", race]);
        let output = probe::output(&mut command);
        over.store(true, Ordering::Relaxed);
        probe::read_lines::<Race>(&output?)?
            .pop()
            .context("one line")
    })?;
    let rival = Rival {
        bound: bound.load(Ordering::Relaxed),
        arrived: arrived.load(Ordering::Relaxed),
    };
    Ok((result, rival))
}

/// Runs the race in rounds of two seconds: at least `least` rounds, then until it is `enough`. A busy machine takes longer.
fn races(
    world: &World,
    fence: impl Fn() -> Result<Fence>,
    kind: &str,
    least: u32,
    enough: impl Fn(&Race, &Rival) -> bool,
) -> Result<(Race, Rival)> {
    const MOST: u32 = 30;
    let (mut inside, mut outside) = (Race::default(), Rival::default());
    for round in 1..=MOST {
        let (race, rival) = race(world, &fence()?, kind, 2000)?;
        inside.opened += race.opened;
        inside.sent += race.sent;
        inside.refused += race.refused;
        inside.lost += race.lost;
        outside.bound += rival.bound;
        outside.arrived += rival.arrived;
        if round >= least && enough(&inside, &outside) {
            return Ok((inside, outside));
        }
    }
    bail!("not enough has happened: {inside:?}, {outside:?}");
}

/// In the control a rule allows the port, so that the host's service is reached.
#[test]
fn no_connection_reaches_a_service_that_takes_the_port() -> Result<()> {
    let world = World::new()?;
    let control = || nobody("race-control", &["tcp:host:7000"]);
    races(&world, control, "tcp/7000", 1, |_, rival| rival.arrived > 0)?;
    let fence = || nobody("race", &["self"]);
    let (inside, rival) = races(&world, fence, "tcp/7000", 4, |inside, rival| {
        inside.opened > 500 && rival.bound > 500 && inside.sent > 500
    })?;
    assert_eq!(rival.arrived, 0, "{inside:?}, {rival:?}");
    Ok(())
}

/// The worst case: the host's service begins at the moment at which the fence's listener ends. A check at connect() alone
/// would let some connections through to the service.
#[test]
fn no_connection_reaches_a_service_that_takes_turns_with_the_listener() -> Result<()> {
    let world = World::new()?;
    let turns = |rule: &str, ms: u64| -> Result<Race> {
        let socket = world.host.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 7004)).into())?;
            Ok(socket)
        })?;
        let fence = nobody("turns", &[rule])?;
        let mut command = fence.command(&world.host, probe::program()?);
        command.args(["--for-ms", &ms.to_string(), "--race", "tcp-turns/7004"]);
        command.stdin(Stdio::from(OwnedFd::from(socket)));
        let output = probe::output(&mut command)?;
        probe::read_lines(&output)?.pop().context("one line")
    };
    // A busy machine takes longer until the two sockets take turns at the right moment.
    let mut control = Race::default();
    for _ in 0..15 {
        control = turns("tcp:host:7004", 2000)?;
        if control.reached > 0 {
            break;
        }
    }
    assert!(control.reached > 0, "control: {control:?}");
    let raced = turns("self", 10_000)?;
    assert!(raced.opened > 100 && raced.sent > 100, "{raced:?}");
    assert_eq!(raced.reached, 0, "{raced:?}");
    Ok(())
}

#[test]
fn a_group_of_listeners_is_never_self() -> Result<()> {
    let world = World::new()?;
    // As the user of the host's service: the kernel makes a group only of sockets of one user.
    let fence = |rule| move || Ok(Fence::new("group")?.with(&["--allow", rule]));
    races(
        &world,
        fence("tcp:host:7001"),
        "tcp-group/7001",
        1,
        |inside, rival| rival.arrived > 0 && inside.sent > 0,
    )?;
    let (inside, rival) = races(
        &world,
        fence("self"),
        "tcp-group/7001",
        2,
        |inside, rival| inside.refused > 500 && rival.bound > 0,
    )?;
    assert_eq!(
        (rival.arrived, inside.sent),
        (0, 0),
        "{inside:?}, {rival:?}"
    );
    Ok(())
}

#[test]
fn udp_sockets_that_share_a_port_are_never_self() -> Result<()> {
    let world = World::new()?;
    let control = || nobody("shared-control", &["udp:host:7002"]);
    races(&world, control, "udp-shared/7002", 1, |_, rival| {
        rival.arrived > 0
    })?;
    let fence = || nobody("shared", &["udp:self:7002"]);
    let (inside, rival) = races(&world, fence, "udp-shared/7002", 2, |inside, _| {
        inside.opened > 500 && inside.refused > 500
    })?;
    assert_eq!(
        (rival.arrived, inside.sent),
        (0, 0),
        "{inside:?}, {rival:?}"
    );
    Ok(())
}

/// The host may take the port between the check and the delivery of a datagram. In a few hundred changes of the port one
/// datagram reaches the host: UDP cannot be checked better (docs/policy.md). With a rule for the port itself many do.
#[test]
fn udp_to_self_is_checked_when_each_datagram_leaves() -> Result<()> {
    let world = World::new()?;
    let control = || nobody("datagrams-control", &["udp:host:7003"]);
    let is_enough = |inside: &Race, rival: &Rival| inside.sent > 500 && rival.bound > 200;
    let (_, control) = races(&world, control, "udp/7003", 1, |inside, rival| {
        is_enough(inside, rival) && rival.arrived > 50
    })?;
    let fence = || nobody("datagrams", &["udp:self:7003"]);
    let (inside, rival) = races(&world, fence, "udp/7003", 2, is_enough)?;
    let [in_control, now] = [&control, &rival].map(|rival| rival.arrived * 100_000 / rival.bound);
    assert!(now * 4 < in_control, "{inside:?}, {rival:?}, {control:?}");
    Ok(())
}
