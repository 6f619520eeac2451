//! `attach`: a fence at a cgroup that others made holds what runs in it, and what is started there later.

mod collisions;
mod descriptors;
mod device;
mod device_program;
mod gives_way;
mod life;
mod members;
mod netns;
mod opened;
mod proof;
mod refusals;
pub(crate) mod scene;
mod wires;

use std::net::IpAddr;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::Fence,
    listener::{Listener, Listeners},
    namespace::Namespace,
    shell::Shell,
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, World},
};

use self::scene::{Attached, Place, attach, listed};
use crate::established::scene::{Holder, Scene, TCP, UDP, WATCHED, serve, to};

const PORT: u16 = 8080;

/// Echoes on the host.
struct Host {
    _tcp: Shell,
    _udp: Vec<Listener>,
}

impl Host {
    fn start(host: &Namespace) -> Result<Self> {
        let tcp = serve(host.command("sh"), &format!("echo-tcp/{TCP}"))?;
        let udp = [HOST_V4, HOST_V6].map(|address| Listener::udp(host, (address, UDP).into()));
        Ok(Self {
            _tcp: tcp,
            _udp: udp.into_iter().collect::<Result<_>>()?,
        })
    }
}

/// The connections of one kind to both families.
fn both(kind: &str, addresses: [IpAddr; 2], port: u16) -> [String; 2] {
    addresses.map(|address| to(kind, address, port))
}

/// Acceptance: a TCP connection to the host ends at once, a connected UDP socket and one that is not connected cannot send
/// to it any more, and the connections to the internet stand.
#[test]
fn what_runs_already_loses_the_host_and_keeps_the_internet() -> Result<()> {
    let scene = Scene::new()?;
    let host = &scene.world.host;
    let _services = Host::start(host)?;
    scene.watch(host)?;
    let fence = Fence::new("attach-running")?;
    let place = Place::new(&fence)?;
    let to_host = [
        both("tcp", [HOST_V4, HOST_V6], TCP),
        both("tcp", [HOST_V4, HOST_V6], WATCHED),
    ]
    .concat();
    let datagrams = both("udp", [HOST_V4, HOST_V6], UDP);
    let unconnected = both("sendto", [HOST_V4, HOST_V6], UDP);
    let elsewhere = [
        both("tcp", [GATEWAY_V4, GATEWAY_V6], TCP),
        both("udp", [GATEWAY_V4, GATEWAY_V6], UDP),
        both("sendto", [GATEWAY_V4, GATEWAY_V6], UDP),
    ]
    .concat();
    let all = [&to_host[..], &datagrams, &unconnected, &elsewhere].concat();
    // It checks that all of them work.
    let mut inside = Holder::start(host.command("sh"), &place.enter(), &all)?;
    let is_unwatched = |name: &String| !name.ends_with(&format!("/{WATCHED}"));
    let others: Vec<String> = all
        .iter()
        .filter(|name| is_unwatched(name))
        .cloned()
        .collect();
    let mut outside = Holder::start(host.command("sh"), "", &others)?;

    let path = place.path().display().to_string();
    let mut attached = Attached::start(&fence, host, &["--cgroup", &path])?;
    inside.await_ended(&to_host, "ECONNABORTED")?;
    scene.await_resets(2)?;
    let lines = inside.ask()?;
    let refused = unconnected
        .iter()
        .map(|name| format!("{name} refused ECONNREFUSED"));
    let stand = elsewhere.iter().map(|name| format!("{name} stands"));
    let expected: Vec<String> = refused.chain(stand).collect();
    assert_eq!(lines, expected, "{}", attached.stderr());
    outside.ensure_stand(&others)?;
    for name in &to_host {
        let address = name.split('/').nth(1).unwrap_or_default();
        let ended = attached.stderr();
        ensure!(
            ended.contains(address) && ended.contains("ended tcp"),
            "{ended}"
        );
    }
    let recorded =
        fence.await_refusal(|refusal| refusal.protocol == "udp" && refusal.port == UDP)?;
    assert_eq!(recorded.fence, fence.name());
    assert!(
        recorded.pid > 0,
        "the owner of an old socket is known: {recorded:?}"
    );
    assert_eq!(listed(&fence)?["state"], "running");

    attached.signal(Signal::SIGINT)?;
    attached.ensure_success()?;
    // They have never ended, and may go on.
    let again = [&datagrams[..], &unconnected, &elsewhere].concat();
    inside.ensure_stand(&again)
}

/// A listener's connections go on: the host may talk to a service of the target.
#[test]
fn accepted_connections_of_the_host_go_on() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("attach-accepted")?;
    let place = Place::new(&fence)?;
    let mut inside = place.shell(&world.host)?;
    let program = tests::probe::program()?;
    inside.tell(&format!("{} --serve echo-tcp/{TCP}", program.display()))?;
    ensure!(inside.next_line()? == "serving");
    let held = both("tcp", [HOST_V4, HOST_V6], TCP);
    let mut caller = Holder::start(world.host.command("sh"), "", &held)?;
    let path = place.path().display().to_string();
    let attached = Attached::start(&fence, &world.host, &["--cgroup", &path])?;
    caller.ensure_stand(&held)?;
    ensure!(
        !attached.stderr().contains("ended tcp"),
        "{}",
        attached.stderr()
    );
    // A new one, too.
    let _later = Holder::start(world.host.command("sh"), "", &held)?;
    Ok(())
}

/// Acceptance: a socket of another cgroup is named, and nothing is fenced.
#[test]
fn a_socket_of_another_cgroup_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let host = &scene.world.host;
    let _services = Host::start(host)?;
    let fence = Fence::new("attach-foreign")?;
    let place = Place::new(&fence)?;
    let held = [to("tcp", HOST_V4, TCP), to("sendto", HOST_V4, UDP)];
    let mut inside = Holder::start(host.command("sh"), "exec", &held)?;
    place.add(inside.started())?;
    let pid = inside.started().to_string();

    let ended = attach(&fence, host, &["--pid", &pid])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    let named = format!("of process {pid} is an internet socket that was made in another cgroup");
    assert_eq!(ended.stderr.matches(&named).count(), 2, "{ended:?}");
    assert!(
        ended.stderr.contains("--allow-foreign-sockets"),
        "{ended:?}"
    );
    assert!(scene::left(&fence).is_empty());
    inside.ensure_stand(&held)?;

    let options = ["--pid", &pid, "--allow-foreign-sockets"];
    let attached = Attached::start(&fence, host, &options)?;
    let warned = attached.stderr();
    assert!(
        warned.contains("NOT FENCED") && warned.contains(&named),
        "{warned}"
    );
    inside.ensure_stand(&held)
}

/// Acceptance: what is started later below a fenced cgroup is held from its first instruction.
#[test]
fn what_is_started_later_below_never_gets_through() -> Result<()> {
    let world = World::new()?;
    let host = Listeners::everywhere(&world.host, PORT)?;
    let _internet = Listeners::everywhere(&world.internet, PORT)?;
    let fence = Fence::new("attach-later")?;
    let place = Place::new(&fence)?;
    let program = tests::probe::program()?;
    let mut starter = Shell::start(world.host.command("sh"))?;
    // Makes cgroups below, each with a process that connects at once.
    let mut start = |count: usize, attempt: &str| {
        starter.ask(&format!(
            "for i in $(seq {count}); do mkdir {0}/$i; (echo 0 >{0}/$i/cgroup.procs; exec {1} {attempt}); rmdir {0}/$i; done",
            place.path().display(),
            program.display(),
        ))
    };
    let to_host = format!("tcp/{HOST_V4}/{PORT}");
    assert_eq!(start(1, &to_host)?.len(), 1);
    assert_eq!(host.arrivals().len(), 1, "control");

    let path = place.path().display().to_string();
    let _attached = Attached::start(&fence, &world.host, &["--cgroup", &path])?;
    let outcomes = start(1000, &to_host)?;
    assert_eq!(outcomes.len(), 1000);
    let refused = outcomes.iter().filter(|line| line.contains("ECONNREFUSED"));
    assert_eq!(refused.count(), 1000, "{:?}", outcomes.first());
    assert_eq!(host.arrivals().len(), 1, "none got through");
    let elsewhere = start(1, &format!("tcp/{SERVER_V4}/{PORT}"))?;
    ensure!(
        !elsewhere.concat().contains("ECONNREFUSED"),
        "{elsewhere:?}"
    );
    Ok(())
}
