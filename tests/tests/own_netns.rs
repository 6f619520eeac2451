//! A network namespace that a process of the fence made is not the host: its loopback is the fence's own.

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    namespace::NOBODY,
    probe::{self, ProbeResult},
    run::to_end,
    shell::Shell,
    world::World,
};

/// The port of services of the host's, and in the namespaces.
const PORT: u16 = 8080;

/// The ways to loopback, after the protocol.
const TO_ITSELF: &str = "tcp/127.0.0.1/8080 tcp/127.9.9.9/8080 tcp/0.0.0.0/8080 tcp/::1/8080 \
    tcp/::ffff:127.0.0.1/8080 tcp-fastopen/127.0.0.1/8080 mptcp/127.0.0.1/8080 tcp/10.9.9.9/8080 \
    udp/127.0.0.1/8080 udp/0.0.0.0/8080 udp/::1/8080 udp-connected/127.0.0.1/8080 udp-connected/::1/8080 \
    udp-connected/0.0.0.0/8080 udp/10.9.9.9/8080 ping/127.0.0.1 ping/::1";

/// A script that serves in the namespace that it is run in, and makes these attempts there.
fn within(attempts: &str) -> Result<String> {
    let program = probe::program()?.display().to_string();
    Ok(format!(
        "echo 0 0 > /proc/sys/net/ipv4/ping_group_range && \
         ip link set lo up && ip address add 10.9.9.9 dev lo && \
         {{ {program} --serve tcp/{PORT} udp/{PORT} >/dev/null & }} && sleep 1 && \
         {program} --timeout-ms 2000 {attempts}; kill $!"
    ))
}

fn nobody(label: &str) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody"]))
}

fn run(command: &mut std::process::Command, script: &str) -> Result<Vec<ProbeResult>> {
    probe::run_command(command.args(["-c", script]))
}

#[test]
fn its_loopback_is_reached_as_without_a_fence() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let inner = within(TO_ITSELF)?;
    for (label, launcher) in [
        ("own", "unshare -Urn"),
        ("nested", "unshare -Urn unshare -n"),
        ("deep", "unshare -Urn unshare -Urn unshare -n"),
        ("cgroup", "unshare -UrnC"),
    ] {
        let script = format!("{launcher} sh -c '{inner}'");
        let control = run(&mut world.host.command_as(NOBODY, "sh"), &script)?;
        let fence = nobody(label)?;
        let outcomes = run(&mut fence.command(&world.host, "sh"), &script)?;
        assert_eq!(outcomes.len(), TO_ITSELF.split_whitespace().count());
        for (control, outcome) in control.iter().zip(&outcomes) {
            ensure!(control.is_reached(), "{label}, control: {control:?}");
            assert!(outcome.is_reached(), "{label}: {outcome:?}");
        }
        assert_eq!(fence.refusals()?, [], "{label}");
    }
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// The control of the above: in the namespace that the fence was started in, loopback is the host's, whatever else the
/// fence has made. And so are the host's addresses, wherever they are.
#[test]
fn at_home_loopback_stays_the_hosts() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fence = nobody("home")?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let inner = within("tcp/127.0.0.1/8080")?;
    let there = shell.ask(&format!("unshare -Urn sh -c '{inner}'"))?;
    let there: Vec<ProbeResult> = probe::read_lines(&there.join("\n"))?;
    ensure!(there[0].is_reached(), "control: {there:?}");
    for attempt in ["tcp/127.0.0.1/8080", "tcp/::1/8080", "udp/127.0.0.1/8080"] {
        let outcome = shell.attempt(&[attempt])?;
        assert!(outcome[0].failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    let program = probe::program()?.display().to_string();
    let host = shell.ask(&format!("unshare -Urn {program} tcp/192.0.2.10/{PORT}"))?;
    let host: Vec<ProbeResult> = probe::read_lines(&host.join("\n"))?;
    assert!(host[0].failed_with("ECONNREFUSED"), "{host:?}");
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// A socket that was made at home stays there, whoever uses it; and one that was made inside, inside.
#[test]
fn the_namespace_is_that_of_the_socket() -> Result<()> {
    const SCRIPT: &str = r#"
import ctypes, os, socket
home = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x40000000):
    raise OSError(ctypes.get_errno(), "unshare")
inside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
for made in home + [inside]:
    try:
        made.connect(("127.0.0.1", 8080))
        print("connected")
    except OSError as error:
        print(error.errno)
"#;
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fence = nobody("sockets")?;
    let mut command = fence.command(&world.host, "/usr/bin/python3");
    let said = probe::output(command.args(["-c", SCRIPT]))?;
    // ECONNREFUSED by the fence, twice; ENETUNREACH by the kernel, since nobody has brought lo up.
    assert_eq!(said.lines().collect::<Vec<_>>(), ["111", "111", "101"]);
    assert_eq!(services.arrivals(), []);
    Ok(())
}

/// Its maker is root in it, and can have a route send 127.0.0.1 elsewhere, say to a link that somebody outside has put
/// there. What leaves by another device than loopback is judged by its address.
#[test]
fn what_a_route_sends_elsewhere_is_judged() -> Result<()> {
    let world = World::new()?;
    let program = probe::program()?.display().to_string();
    let script = format!(
        "unshare -Urn sh -c 'ip link set lo up && ip link add one type veth peer name two && \
         ip link set one up && ip link set two up && ip address add 10.9.9.1/24 dev one && \
         echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet && \
         ip address del 127.0.0.1/8 dev lo && ip route flush table local 127.0.0.0/8; \
         ip neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev one && \
         ip route add 127.0.0.1 via 10.9.9.2 dev one && \
         {program} --timeout-ms 500 udp/127.0.0.1/{PORT} udp-connected/127.0.0.1/{PORT}'"
    );
    let control = run(&mut world.host.command_as(NOBODY, "sh"), &script)?;
    ensure!(
        control.iter().all(|outcome| outcome.errno.is_none()),
        "control: {control:?}"
    );
    let fence = nobody("routed")?;
    for outcome in run(&mut fence.command(&world.host, "sh"), &script)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    let refusal = fence.await_refusal(|refusal| refusal.destination == "127.0.0.1")?;
    assert_eq!(refusal.hook, "egress", "{refusal:?}");
    Ok(())
}

/// Sends something over its own loopback for each line that it reads.
const TALKER: &str = r#"
import socket, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
server.settimeout(10)
print("connected", flush=True)
for line in sys.stdin:
    try:
        client.send(b"more")
        print(server.recv(64).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"#;

/// A stricter policy ends connections that it denies, and has their segments judged: it denies nothing in there.
#[test]
fn a_change_of_the_policy_ends_nothing_in_there() -> Result<()> {
    let world = World::new()?;
    let fence = nobody("change")?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let talker = TALKER.replace('"', "\\\"").replace('$', "\\$");
    shell.tell(&format!(
        "exec unshare -Urn /usr/bin/python3 -c \"{talker}\""
    ))?;
    ensure!(shell.next_line()? == "connected");
    let mut set = world.host.command(qfence()?);
    set.args(["set", fence.name(), "--deny", "203.0.113.200"]);
    let ended = to_end(set)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    ensure!(!ended.stderr.contains("ended"), "{ended:?}");
    shell.tell("")?;
    assert_eq!(shell.next_line().context("an answer")?, "more");
    assert_eq!(fence.refusals()?, []);
    Ok(())
}
