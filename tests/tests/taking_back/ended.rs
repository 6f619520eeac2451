//! Connected sockets that a change of the policy ends.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    listener::Listeners,
    probe,
    run::wait_until,
    shell::Shell,
    world::{HOST_V4, SERVER_V4, SERVER_V6, World},
};

use super::{PORT, set};

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
