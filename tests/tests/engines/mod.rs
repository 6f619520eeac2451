//! Workloads of real engines: podman with runc and crun, Docker, containerd, systemd, libvirt, and LXC.

mod added;
mod attach;
mod containerd;
mod device_programs;
mod docker;
mod followed;
mod guest_process;
mod inside;
mod killed;
mod libvirt;
mod lxc;
mod nri;
mod podman;
mod published;
mod unit;

use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result};
use qfence_user::probe::ProbeResult;
use tests::{
    engines::{IMAGE, PROBE, Room},
    fence::qfence,
    listener::Listeners,
    probe::read_lines,
    run::{Ended, wait_until},
    world::{HOST_V4, SERVER_V4, World},
};

const PORT: u16 = 8080;

/// A command that ends with its container.
const FOR_EVER: [&str; 3] = ["sh", "-c", "while :; do /bin/busybox sleep 1; done"];

/// A host with engines, and the services on it and in its internet.
struct Scene {
    room: Room,
    host: Listeners,
    internet: Listeners,
    world: World,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::with(Room::new)
    }

    fn with(room: fn(&World, &str) -> Result<Room>) -> Result<Self> {
        let world = World::new()?;
        let room = room(&world, &SERVER_V4.to_string())?;
        let host = Listeners::everywhere(&world.host, PORT)?;
        let internet = Listeners::everywhere(&world.internet, PORT)?;
        // Where contrib/ names it.
        let program = qfence()?;
        let program = program.to_str().context("a path")?;
        room.output(&["ln", "-s", program, "/usr/local/bin/qfence-user"])?;
        Ok(Self {
            room,
            host,
            internet,
            world,
        })
    }

    /// What a container tries: two addresses of the node, its own side of the bridge `gateway`, and the internet.
    fn attempts(gateway: &str) -> [String; 6] {
        [
            format!("tcp/{HOST_V4}/{PORT}"),
            format!("udp/{HOST_V4}/{PORT}"),
            format!("tcp/{gateway}/{PORT}"),
            format!("udp/{gateway}/{PORT}"),
            format!("tcp/{SERVER_V4}/{PORT}"),
            format!("udp/{SERVER_V4}/{PORT}"),
        ]
    }

    /// Runs a container that makes the attempts. `engine` are the words before the image.
    fn probe(&self, engine: &[&str], gateway: &str) -> Result<Ended> {
        let attempts = Self::attempts(gateway);
        let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
        self.room
            .run(&[engine, &[IMAGE, PROBE], &attempts].concat())
    }

    /// Makes the attempts in a container that runs.
    fn probe_in(&self, engine: &str, container: &str, gateway: &str) -> Result<Ended> {
        let attempts = Self::attempts(gateway);
        let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
        let exec = [engine, "exec", container, PROBE];
        self.room.run(&[&exec, &attempts[..]].concat())
    }

    /// The fences, as JSON.
    fn fences(&self) -> Result<String> {
        self.room.output(&["qfence-user", "ps", "--json"])
    }

    /// How many attempts arrived on the node, and in the internet.
    fn arrived(&self) -> (usize, usize) {
        (self.host.arrivals().len(), self.internet.arrivals().len())
    }

    /// Nothing of a fence is left. Sockets of a container that has ended may keep programs for a moment.
    fn assert_nothing_left(&self) -> Result<()> {
        assert_eq!(self.fences()?.trim(), "[]");
        let mut left = String::new();
        let nothing = wait_until("nothing is pinned", || {
            self.fences()?;
            let find = ["find", "/sys/fs/bpf", "-mindepth", "2"];
            left = self.room.output(&find)?;
            Ok(left.is_empty())
        });
        nothing.context(left)
    }
}

/// What is written to the system's log on such a host.
struct SystemLog(UnixDatagram);

impl SystemLog {
    fn listen(scene: &Scene) -> Result<Self> {
        let log = UnixDatagram::bind(scene.room.path("/dev/log"))?;
        log.set_nonblocking(true)?;
        Ok(Self(log))
    }

    /// The messages since the last time.
    fn messages(&self) -> String {
        let mut messages = String::new();
        let mut message = [0; 4096];
        while let Ok(length) = self.0.recv(&mut message) {
            messages += &String::from_utf8_lossy(&message[..length]);
            messages.push('\n');
        }
        messages
    }
}

/// What the attempts of a container came to.
fn results(ended: &Ended) -> Result<Vec<ProbeResult>> {
    let results: Vec<ProbeResult> =
        read_lines(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    assert_eq!(results.len(), 6, "{ended:?}");
    Ok(results)
}

/// The container reached everything: the control of all other tests.
fn assert_open(ended: &Ended) -> Result<()> {
    for result in results(ended)? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    Ok(())
}

/// The container reached nothing of the node, and the internet.
fn assert_fenced(ended: &Ended) -> Result<()> {
    let results = results(ended)?;
    for refused in &results[..4] {
        assert!(refused.failed_with("ECONNREFUSED"), "{refused:?}");
    }
    for reached in &results[4..] {
        assert!(reached.says("hello from"), "{reached:?}");
    }
    Ok(())
}
