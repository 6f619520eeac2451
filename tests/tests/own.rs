//! The set `self`: listeners that were made in the fence are reached by a rule that allows it, and nothing of the host's.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::{self, Race},
    run::to_end,
    shell::Shell,
    world::World,
};

/// The port of the service in the fence, and that of the host's.
const INSIDE: u16 = 5000;
const HOST: u16 = 8080;

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

fn nobody(label: &str, rules: &[&str]) -> Result<Fence> {
    let fence = Fence::new(label)?.with(&["--user", "nobody"]);
    let allow = |fence: Fence, rule: &&str| fence.with(&["--allow", rule]);
    Ok(rules.iter().fold(fence, allow))
}

/// A shell in a fence with these services.
fn serve(world: &World, fence: &Fence, services: &str) -> Result<Shell> {
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?;
    shell.tell(&format!("{} --serve {services} &", program.display()))?;
    assert_eq!(shell.next_line()?, "serving");
    Ok(shell)
}

fn stop(mut shell: Shell) -> Result<()> {
    shell.tell("kill $!; exit")
}

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
fn a_refusal_that_self_would_allow_says_so() -> Result<()> {
    let world = World::new()?;
    let _services = Listeners::everywhere(&world.host, HOST)?;
    let fence = nobody("hint", &[])?;
    let mut shell = serve(&world, &fence, &format!("tcp/{INSIDE} echo-udp/{INSIDE}"))?;
    let attempts = [
        format!("tcp/127.0.0.1/{INSIDE}"),
        format!("udp/127.0.0.1/{INSIDE}"),
        format!("tcp/127.0.0.1/{HOST}"),
        "tcp/127.0.0.1/1".to_owned(),
    ];
    shell.attempt(&attempts.each_ref().map(String::as_str))?;
    for (protocol, port, of_self) in [
        ("tcp", INSIDE, true),
        ("udp", INSIDE, true),
        ("tcp", HOST, false),
        ("tcp", 1, false),
    ] {
        fence.await_refusal(|line| line.port == port && line.protocol == protocol)?;
        let log = std::fs::read_to_string(fence.log())?;
        let line = log.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["port"] == port && line["protocol"] == protocol).then_some(line)
        });
        assert_eq!(
            line.context("a line")?["self"],
            of_self,
            "{protocol} {port}"
        );
    }
    let mut logs = world.host.command(qfence()?);
    logs.args(["logs", fence.name()]);
    let text = to_end(logs)?.stdout;
    let hint = "(the listener was made in this fence: --allow tcp:self:5000)";
    assert!(text.contains(hint), "{text}");
    stop(shell)
}

#[test]
fn explain_tells_of_self() -> Result<()> {
    let world = World::new()?;
    let explain = |arguments: &[&str]| -> Result<String> {
        let mut command = world.host.command(qfence()?);
        command.arg("explain").args(arguments);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(ended.stdout + &ended.stderr)
    };
    let with = explain(&["--allow", "self", "tcp:127.0.0.1:8000"])?;
    let expected = "deny host; allow self, if the listener was made in the fence";
    assert!(with.contains(expected), "{with}");
    let without = explain(&["tcp:127.0.0.1:8000"])?;
    assert!(without.contains("--allow tcp:self:8000"), "{without}");
    assert!(!explain(&["tcp:192.0.2.99:8000"])?.contains("self"));
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

/// A service of the host's that takes a port whenever it is free.
#[derive(Debug, Default)]
struct Rival {
    bound: u64,
    arrived: u64,
}

/// Runs the race in a fence, and a rival of the host's meanwhile.
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

/// Runs the race for some seconds in rounds, and on until it is `enough`; a busy machine takes longer.
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
/// lets some of them through to it.
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
    let control = turns("tcp:host:7004", 2000)?;
    assert!(control.reached > 0, "control: {control:?}");
    let raced = turns("self", 10_000)?;
    assert!(raced.opened > 100 && raced.sent > 100, "{raced:?}");
    assert_eq!(raced.reached, 0, "{raced:?}");
    Ok(())
}

#[test]
fn a_group_of_listeners_is_never_self() -> Result<()> {
    let world = World::new()?;
    // The same user as the host's service: otherwise the kernel makes no group.
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

/// A port that the fence had alone and the host takes at that moment gets a datagram in a few hundred such moments: the
/// limit of what can be checked for UDP (docs/policy.md). By a rule for the port itself they are many.
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
