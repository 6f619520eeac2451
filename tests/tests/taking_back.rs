//! What a policy allowed and does not any more: no socket keeps it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread::{self, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::{self, ProbeResult},
    run::{Ended, to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, SERVER_V4, SERVER_V6, World},
};

/// A service of the host's.
const PORT: u16 = 8080;
/// The port in the fence that speaks to it.
const INSIDE: u16 = 5000;

fn set(world: &World, fence: &Fence, options: &[&str]) -> Result<Ended> {
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name()]).args(options);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{options:?}: {ended:?}");
    Ok(ended)
}

fn ask(shell: &mut Shell, attempt: &str) -> Result<ProbeResult> {
    let outcomes = shell.attempt(&["--timeout-ms", "500", attempt])?;
    outcomes.into_iter().next().context("one outcome")
}

/// The host's answers are answers, however often they come: they open no way.
#[test]
fn a_service_that_was_asked_has_not_spoken_first() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let rule = format!("udp:{HOST_V4}:{PORT}");
    for (before, after) in [
        (vec!["--allow", &*rule], vec!["--deny", &*rule]),
        (vec!["--monitor"], vec!["--enforce"]),
    ] {
        let fence = Fence::new("asked")?
            .with(&["--user", "nobody"])
            .with(&before);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let attempt = format!("udp/{HOST_V4}/{PORT}+port={INSIDE}+reuse");
        for _ in 0..3 {
            let outcome = ask(&mut inside, &attempt)?;
            ensure!(outcome.is_reached(), "control: {outcome:?}");
        }
        set(&world, &fence, &after)?;
        let arrived = services.arrivals().len();
        for _ in 0..3 {
            let outcome = ask(&mut inside, &attempt)?;
            assert!(
                outcome.failed_with("ECONNREFUSED"),
                "{after:?}: {outcome:?}"
            );
        }
        assert_eq!(services.arrivals().len(), arrived, "{after:?}");
        fence.await_refusal(|refusal| refusal.destination == HOST_V4.to_string())?;
        inside.tell("exit")?;
    }
    Ok(())
}

/// A nameserver that was asked, and is none any more.
#[test]
fn a_former_nameserver_is_answered_no_more() -> Result<()> {
    let world = World::new()?;
    let before: IpAddr = "127.0.0.53".parse()?;
    let _service = Listeners::everywhere(&world.host, 53)?;
    for change in ["resolv.conf", "--dns deny"] {
        world.write_resolv_conf("nameserver 127.0.0.53\n")?;
        let fence = Fence::new("dns")?.with(&["--user", "nobody"]);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let attempt = format!("udp/{before}/53+port={INSIDE}+reuse");
        let outcome = ask(&mut inside, &attempt)?;
        ensure!(outcome.is_reached(), "control: {outcome:?}");
        match change {
            "resolv.conf" => world.write_resolv_conf("nameserver 127.0.0.54\n")?,
            _ => drop(set(&world, &fence, &["--dns", "deny"])?),
        }
        wait_until("the former nameserver is refused", || {
            Ok(ask(&mut inside, &attempt)?.failed_with("ECONNREFUSED"))
        })
        .context(change)?;
        inside.tell("exit")?;
    }
    Ok(())
}

/// Who spoke first is answered, by a rule of its own, until the policy changes; and again when it speaks again.
#[test]
fn replies_are_counted_and_forgotten_with_the_policy() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("replies")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?.display().to_string();
    inside.tell(&format!("{program} --serve udp/{INSIDE} &"))?;
    assert_eq!(inside.next_line()?, "serving");
    let speak = || -> Result<()> {
        let attempt = format!("udp/127.0.0.1/{INSIDE}+port={PORT}+reuse");
        let outcomes = probe::run(&world.host, &["--timeout-ms", "500", &attempt])?;
        ensure!(outcomes[0].errno.is_none(), "{outcomes:?}");
        Ok(())
    };
    let answer = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    speak()?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "control: {outcome:?}");

    let mut show = world.host.command(qfence()?);
    show.args(["policy", "show", "--json", fence.name()]);
    let shown: serde_json::Value = serde_json::from_str(&to_end(show)?.stdout)?;
    let replies = &shown["replies"];
    ensure!(replies["calls"].as_u64() >= Some(1), "{replies}");
    ensure!(replies["packets"].as_u64() >= Some(1), "{replies}");

    set(&world, &fence, &["--deny", "tcp:192.0.2.1:9"])?;
    let outcome = ask(&mut inside, &answer)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    speak()?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "after it spoke again: {outcome:?}");
    inside.tell("kill $!; exit")
}

/// A socket that came out of accept(), let go of its peer and connected anew, is the fence's own doing.
#[test]
fn what_was_accepted_and_connects_anew_is_ended_too() -> Result<()> {
    let world = World::new()?;
    for server in [SERVER_V4, SERVER_V6] {
        let echo = world
            .internet
            .run(|| Ok(TcpListener::bind(SocketAddr::new(server, PORT))?))?;
        thread::spawn(move || -> std::io::Result<()> {
            for stream in echo.incoming() {
                let stream = stream?;
                thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
            Ok(())
        });
        let fence = Fence::new("accepted")?.with(&["--user", "nobody"]);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let program = probe::program()?.display().to_string();
        inside.tell(&format!("{program} --hold accepted-tcp/{server}/{PORT}"))?;
        // Somebody on the host connects to its listener.
        let own: SocketAddr = match server {
            IpAddr::V4(_) => "127.0.0.1:5999".parse()?,
            IpAddr::V6(_) => "[::1]:5999".parse()?,
        };
        let mut peer = None;
        wait_until("the listener in the fence is up", || {
            peer = world.host.run(|| Ok(TcpStream::connect(own).ok()))?;
            Ok(peer.is_some())
        })?;
        assert_eq!(
            inside.next_line()?,
            format!("accepted-tcp/{server}/{PORT} held")
        );
        assert_eq!(inside.next_line()?, "holding");
        inside.tell("")?;
        assert_eq!(
            inside.next_line()?,
            format!("accepted-tcp/{server}/{PORT} stands")
        );
        assert_eq!(inside.next_line()?, "asked");

        let ended = set(&world, &fence, &["--deny", &server.to_string()])?;
        assert!(ended.stderr.contains("qfence: ended tcp "), "{ended:?}");
        let line = inside.next_line()?;
        assert_eq!(
            line,
            format!("accepted-tcp/{server}/{PORT} ended ECONNABORTED")
        );
    }
    Ok(())
}

/// The kernel opens ways of MPTCP by itself: what it is refused is the doing of the connection's owner.
#[test]
fn a_way_that_the_kernel_opens_is_its_owners() -> Result<()> {
    let world = World::new()?;
    let host = &world.host;
    host.ip("mptcp limits set subflow 4 add_addr_accepted 4")?;
    world
        .internet
        .ip("mptcp limits set subflow 4 add_addr_accepted 4")?;
    // The peer says that it is to be had at an address of the host's, too.
    world
        .internet
        .ip(&format!("mptcp endpoint add {HOST_V4} signal"))?;
    let program = probe::program()?.display().to_string();
    let mut server = Shell::start(world.internet.command("sh"))?;
    server.tell(&format!("{program} --serve echo-mptcp/{PORT}"))?;
    assert_eq!(server.next_line()?, "serving");

    let fence = Fence::new("mptcp")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(host, "sh"))?;
    inside.tell(&format!("{program} --hold mptcp/{SERVER_V4}/{PORT}"))?;
    assert_eq!(
        inside.next_line()?,
        format!("mptcp/{SERVER_V4}/{PORT} held")
    );
    assert_eq!(inside.next_line()?, "holding");
    inside.tell("")?;
    assert_eq!(
        inside.next_line()?,
        format!("mptcp/{SERVER_V4}/{PORT} stands")
    );
    let refusal = fence.await_refusal(|refusal| refusal.destination == HOST_V4.to_string())?;
    assert_eq!(
        (&*refusal.hook, &*refusal.command),
        ("connect4", "probe"),
        "{refusal:?}"
    );
    ensure!(refusal.pid != 0 && refusal.cgroup != 1, "{refusal:?}");
    Ok(())
}

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

/// A service that is bound to all addresses answers by one that the kernel chooses, which nobody has asked.
#[test]
fn an_answer_from_another_address_is_an_answer() -> Result<()> {
    let world = World::new()?;
    let asked = SocketAddr::new(HOST_V4, PORT);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let service = world.host.run(|| Ok(UdpSocket::bind(any)?))?;
    thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = service.recv_from(&mut buffer)?;
            service.send_to(b"here", peer)?;
        }
    });
    let fence = Fence::new("wild")?.with(&["--user", "nobody", "--allow", &format!("udp:{asked}")]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let other = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    let before = ask(&mut inside, &other)?;
    assert!(before.failed_with("ECONNREFUSED"), "{before:?}");
    // Bound to 127.0.0.1, so that the answer comes from there.
    let outcome = ask(
        &mut inside,
        &format!("udp/{HOST_V4}/{PORT}+src=127.0.0.1+port={INSIDE}+reuse"),
    )?;
    ensure!(outcome.is_reached(), "control: {outcome:?}");
    for _ in 0..3 {
        let outcome = ask(&mut inside, &other)?;
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    inside.tell("exit")
}

/// A group gets its copies before egress, where a connected socket is judged: so `set` ends the socket.
fn ends_a_socket_that_is_connected_to_a_group(options: &[&str], change: &[&str]) -> Result<()> {
    let world = World::new()?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let fence = Fence::new("group")?
        .with(&["--user", "nobody"])
        .with(options);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?.display().to_string();
    let (group, other) = (
        format!("udp/239.1.2.3/{PORT}"),
        format!("udp/{SERVER_V4}/{PORT}"),
    );
    inside.tell(&format!("{program} --hold {group} {other}"))?;
    for expected in [
        format!("{group} held"),
        format!("{other} held"),
        "holding".into(),
    ] {
        assert_eq!(inside.next_line()?, expected);
    }
    set(&world, &fence, change)?;
    assert_eq!(inside.next_line()?, format!("{group} ended ECONNABORTED"));
    inside.tell("")?;
    assert_eq!(inside.next_line()?, format!("{other} stands"), "control");
    Ok(())
}

#[test]
fn a_socket_that_is_connected_to_a_group_is_ended() -> Result<()> {
    ends_a_socket_that_is_connected_to_a_group(&["--monitor"], &["--enforce"])
}

#[test]
fn a_socket_that_is_connected_to_a_group_is_ended_by_a_rule_for_its_protocol() -> Result<()> {
    ends_a_socket_that_is_connected_to_a_group(&["--allow", "any"], &["--deny", "udp:239.1.2.3"])
}
