//! What a fence has connected to before it is denied is ended, and nothing else.

pub(crate) mod scene;
mod set;
mod stuck;
mod ways;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use qfence_user::supervise::established::{self, Connection};
use scene::{Holder, MPTCP, Scene, TCP, UDP, WATCHED, serve, to};
use tests::{
    fence::{Fence, qfence},
    namespace::Namespace,
    remains,
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6},
};

/// A port served in the fence.
const INSIDE: u16 = 5000;

/// The server as it is called by IPv6 sockets for IPv4.
fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        v6 => v6,
    }
}

fn is_server(connection: &Connection) -> bool {
    [SERVER_V4, SERVER_V6].contains(&connection.remote.ip())
}

fn nobody(label: &str) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody"]))
}

/// What makes a root's shell outside a process of a fence.
fn enter(fence: &Fence) -> Result<String> {
    let procs = remains::cgroup(fence.name())?.join("cgroup.procs");
    Ok(format!("echo 0 >{};", procs.display()))
}

#[test]
fn this_kernel_can_end_connections() -> Result<()> {
    established::check(&qfence()?)
}

/// The fenced process waits in a call, which fails; the peer gets a reset.
#[test]
fn a_denied_connection_ends_at_both_ends_and_others_stay() -> Result<()> {
    let scene = Scene::new()?;
    let denied = [
        to("tcp", SERVER_V4, WATCHED),
        to("tcp", SERVER_V6, WATCHED),
        to("tcp", mapped(SERVER_V4), WATCHED),
        to("udp", SERVER_V4, UDP),
        to("udp", SERVER_V6, UDP),
        to("udp", mapped(SERVER_V4), UDP),
    ];
    let others = [
        to("tcp", GATEWAY_V4, TCP),
        to("tcp", GATEWAY_V6, TCP),
        to("tcp", mapped(GATEWAY_V4), TCP),
        to("udp", GATEWAY_V4, UDP),
        to("udp", GATEWAY_V6, UDP),
        // The same address, on another port.
        to("tcp", SERVER_V4, TCP),
    ];
    let fence = nobody("denied")?;
    let all = [&denied[..], &others].concat();
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
    let mut outside = Holder::start(scene.world.host.command("sh"), "", &all)?;

    let ended = scene.end(&fence, inside.started(), |connection| {
        is_server(connection) && connection.remote.port() != TCP
    })?;
    inside.await_ended(&denied, "ECONNABORTED")?;
    scene.await_resets(3)?;
    inside.ensure_stand(&others)?;
    outside.ensure_stand(&all)?;
    assert_eq!((ended.tcp(), ended.udp()), (3, 3), "{ended:?}");
    for connection in &ended.connections {
        assert!(is_server(connection), "{connection}");
        let hosts = [HOST_V4, HOST_V6];
        assert!(hosts.contains(&connection.local.ip()), "{connection}");
    }
    // Nothing is left to be ended.
    let again = scene.end(&fence, inside.started(), is_server)?;
    assert_eq!(again.connections.len(), 1, "{again:?}");
    assert_eq!(again.connections[0].remote.port(), TCP);
    Ok(())
}

/// Each family by itself, so that no end is due to the other's.
#[test]
fn connections_are_judged_by_protocol_address_and_port() -> Result<()> {
    let scene = Scene::new()?;
    let mut names = Vec::new();
    for address in [SERVER_V4, SERVER_V6, GATEWAY_V4, GATEWAY_V6] {
        for (kind, port) in [("tcp", TCP), ("udp", UDP)] {
            names.push(to(kind, address, port));
        }
    }
    let fence = nobody("each")?;
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &names)?;
    let mut left = names.clone();
    for name in &names {
        let named = |connection: &Connection| {
            let Connection {
                protocol, remote, ..
            } = connection;
            let kind = if protocol.0 == 6 { "tcp" } else { "udp" };
            to(kind, remote.ip(), remote.port()) == *name
        };
        let ended = scene.end(&fence, inside.started(), named)?;
        assert_eq!(ended.connections.len(), 1, "{name}: {ended:?}");
        left.retain(|other| other != name);
        inside.ensure_stand(&left)?;
    }
    inside.await_ended(&names, "ECONNABORTED")
}

#[test]
fn what_came_in_to_a_listener_of_the_fence_stays() -> Result<()> {
    let scene = Scene::new()?;
    let fence = nobody("accepted")?;
    let services = format!("echo-tcp/{INSIDE} echo-mptcp/{}", INSIDE + 1);
    let inside = serve(fence.command(&scene.world.host, "sh"), &services)?;
    let mut names = Vec::new();
    for address in [HOST_V4, HOST_V6] {
        names.push(to("tcp", address, INSIDE));
        names.push(to("tcp", address, INSIDE + 1));
        names.push(to("mptcp", address, INSIDE + 1));
    }
    let mut peers = Holder::start(scene.world.internet.command("sh"), "", &names)?;
    // From the same fence to the same addresses.
    let out = [
        to("tcp", GATEWAY_V4, WATCHED),
        to("tcp", GATEWAY_V6, WATCHED),
    ];
    let shell = scene.world.host.command("sh");
    let mut outgoing = Holder::start(shell, &enter(&fence)?, &out)?;

    let ended = scene.end(&fence, inside.started(), |_| true)?;
    outgoing.await_ended(&out, "ECONNABORTED")?;
    scene.await_resets(2)?;
    peers.ensure_stand(&names)?;
    assert_eq!(ended.connections.len(), 2, "{ended:?}");
    Ok(())
}

#[test]
fn a_connection_from_another_namespace_of_the_fence_ends() -> Result<()> {
    let scene = Scene::new()?;
    let other = Namespace::new()?;
    other.ip_batch(&format!(
        "link add eth0 type veth peer name other0 netns {}\n\
         link set lo up\nlink set eth0 up\naddress add 198.18.0.1/24 dev eth0\n",
        scene.world.internet.path().display()
    ))?;
    let internet = &scene.world.internet;
    internet.ip_batch("address add 198.18.0.2/24 dev other0\nlink set other0 up\n")?;
    let server: IpAddr = "198.18.0.2".parse()?;
    let names = [to("tcp", server, WATCHED), to("udp", server, UDP)];
    // Its maker is this test.
    let fence = Fence::new("elsewhere")?.with(&["--allow-foreign-netns"]);
    let path = scene.world.mount_namespace(&other)?;
    let prefix = format!("nsenter --net={}", path.display());
    let command = fence.command(&scene.world.host, "sh");
    let mut inside = Holder::start(command, &prefix, &names)?;
    let mut outside = Holder::start(other.command("sh"), "", &names)?;

    let ended = scene.end(&fence, inside.started(), |_| true)?;
    inside.await_ended(&names, "ECONNABORTED")?;
    scene.await_resets(1)?;
    outside.ensure_stand(&names)?;
    assert_eq!((ended.tcp(), ended.udp()), (1, 1), "{ended:?}");
    Ok(())
}

#[test]
fn a_connection_of_a_cgroup_below_ends_even_if_that_is_gone() -> Result<()> {
    let scene = Scene::new()?;
    let fence = nobody("below")?;
    let mut shell = tests::shell::Shell::start(fence.command(&scene.world.host, "sh"))?;
    let cgroup = remains::cgroup(fence.name())?;
    let below = cgroup.join("below");
    std::fs::create_dir(&below)?;
    let names = [to("tcp", SERVER_V4, WATCHED), to("udp", SERVER_V6, UDP)];
    let prefix = format!("echo 0 >{}/cgroup.procs;", below.display());
    let mut inside = Holder::start(scene.world.host.command("sh"), &prefix, &names)?;
    let ended = scene.end(&fence, shell.started(), |_| true)?;
    inside.await_ended(&names, "ECONNABORTED")?;
    assert_eq!((ended.tcp(), ended.udp()), (1, 1), "{ended:?}");

    let names = [to("tcp", SERVER_V4, TCP)];
    let mut inside = Holder::start(scene.world.host.command("sh"), &prefix, &names)?;
    for pid in std::fs::read_to_string(below.join("cgroup.procs"))?.lines() {
        std::fs::write(cgroup.join("cgroup.procs"), pid)?;
    }
    std::fs::remove_dir(&below)?;
    scene.end(&fence, shell.started(), |_| true)?;
    inside.await_ended(&names, "ECONNABORTED")?;
    shell.tell("exit")
}

#[test]
fn a_connection_that_is_being_opened_is_given_up() -> Result<()> {
    let scene = Scene::new()?;
    // Whoever is at that address answers nothing.
    scene
        .world
        .host_ip("neighbor add 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0")?;
    let silent: IpAddr = "192.0.2.77".parse()?;
    let names = [to("opening", silent, TCP)];
    let fence = nobody("opening")?;
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &names)?;
    let ended = scene.end(&fence, inside.started(), |_| true)?;
    inside.await_ended(&names, "ECONNABORTED")?;
    assert_eq!(ended.connections.len(), 1, "{ended:?}");
    Ok(())
}

/// As one does that was allowed a moment before, and was on its way when it was looked for.
#[test]
fn a_connection_that_shows_up_late_is_found_by_another_look() -> Result<()> {
    let scene = Scene::new()?;
    let names = [to("tcp", SERVER_V4, WATCHED)];
    let fence = nobody("late")?;
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &names)?;
    let looks = AtomicU32::new(0);
    let ended = scene.end(&fence, inside.started(), |_| {
        looks.fetch_add(1, Ordering::Relaxed) > 0
    })?;
    inside.await_ended(&names, "ECONNABORTED")?;
    assert_eq!(ended.connections.len(), 1, "{ended:?}");
    Ok(())
}

/// MPTCP says nothing to its owner: it waits for another way to the peer, for a minute.
#[test]
fn mptcp_carries_nothing_any_more() -> Result<()> {
    let scene = Scene::new()?;
    let denied = [to("mptcp", SERVER_V4, MPTCP), to("mptcp", SERVER_V6, MPTCP)];
    // The server has no MPTCP on this port, so this is TCP, and its owner is told.
    let fallen = [to("mptcp", SERVER_V4, WATCHED)];
    let others = [to("mptcp", GATEWAY_V4, MPTCP)];
    let fence = nobody("mptcp")?;
    let all = [&denied[..], &fallen, &others].concat();
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
    let mut outside = Holder::start(scene.world.host.command("sh"), "", &all)?;
    let ended = scene.end(&fence, inside.started(), is_server)?;
    assert_eq!((ended.tcp(), ended.udp()), (3, 0), "{ended:?}");
    inside.await_ended(&fallen, "ECONNABORTED")?;
    scene.await_resets(1)?;
    let mut lines = inside.ask()?;
    lines.sort();
    let mut expected: Vec<_> = denied.iter().map(|name| format!("{name} silent")).collect();
    expected.push(format!("{} stands", others[0]));
    expected.sort();
    assert_eq!(lines, expected);
    outside.ensure_stand(&all)
}
