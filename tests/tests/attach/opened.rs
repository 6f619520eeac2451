//! Who opened a TCP connection that stood before the fence: what the target opened is ended or kept by the policy, and what
//! it accepted goes on, wherever their descriptors are, and whatever the target did to hide it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    run::to_end,
    shell::Shell,
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6},
};

use super::{
    Host,
    scene::{Attached, Place},
};
use crate::established::scene::{Scene, TCP};

/// The port of the target's service.
const SERVES: u16 = 7100;

/// What the target has opened to the host.
const TO_HOST: [&str; 7] = [
    "plain",
    "beside a listener",
    "opened again",
    "with a discarded byte",
    "opened again, with a discarded byte",
    "on its way",
    "on its way, opened again, with a discarded byte",
];

/// What it has opened to the internet, and what it has accepted from the host.
const ELSEWHERE: [&str; 2] = ["elsewhere", "elsewhere, on its way"];
const ACCEPTED: [&str; 2] = ["accepted", "from the queue"];

/// A process in the cgroup with such connections.
struct Target {
    shell: Shell,
}

impl Target {
    /// Starts it, with two callers on the host that send all data back.
    fn start(scene: &Scene, place: &Place, host: IpAddr, internet: IpAddr) -> Result<Self> {
        let script = place.script(include_str!("old.py"))?;
        let mut shell = place.shell(&scene.world.host)?;
        shell.tell(&format!(
            "/usr/bin/python3 {} {host} {internet} {TCP} {SERVES}",
            script.display()
        ))?;
        ensure!(shell.next_line()? == "listening", "{}", shell.stderr());
        for _ in ACCEPTED {
            let to = SocketAddr::new(host, SERVES);
            let stream = scene.world.host.run(|| Ok(TcpStream::connect(to)?))?;
            thread::spawn(move || echo(&stream));
        }
        ensure!(shell.next_line()? == "ready", "{}", shell.stderr());
        Ok(Self { shell })
    }

    /// The state of each connection.
    fn ask(&mut self) -> Result<Vec<(String, String)>> {
        self.shell.tell("")?;
        let mut states = Vec::new();
        loop {
            let line = self.shell.next_line()?;
            if line == "asked" {
                return Ok(states);
            }
            let (name, state) = line.split_once(": ").context(line.clone())?;
            states.push((name.to_owned(), state.to_owned()));
        }
    }
}

fn echo(mut stream: &TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// That the connections with these names have this state.
fn ensure_all(states: &[(String, String)], names: &[&str], expected: &str) -> Result<()> {
    for name in names {
        let found = states.iter().find(|(found, _)| found == name);
        let state = found.map(|(_, state)| state.as_str());
        ensure!(state == Some(expected), "{name}: {states:?}");
    }
    Ok(())
}

fn opened_and_accepted(label: &str, host: IpAddr, internet: IpAddr) -> Result<()> {
    let scene = Scene::new()?;
    let _services = Host::start(&scene.world.host)?;
    let fence = Fence::new(label)?;
    let place = Place::new(&fence)?;
    let mut target = Target::start(&scene, &place, host, internet)?;
    let path = place.path().display().to_string();
    let attached = Attached::start(&fence, &scene.world.host, &["--cgroup", &path])?;
    let states = target.ask()?;
    let said = attached.stderr();
    ensure_all(&states, &ACCEPTED, "stands").context(said.clone())?;
    ensure_all(&states, &ELSEWHERE, "stands").context(said.clone())?;
    ensure_all(&states, &TO_HOST, "ECONNABORTED").context(said)?;

    // A later policy holds what no descriptor led to, too.
    let mut set = scene.world.host.command(qfence()?);
    set.args(["set", fence.name(), "--deny", "any"]);
    let ended = to_end(set)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    let states = target.ask()?;
    ensure_all(&states, &ACCEPTED, "stands")?;
    ensure_all(&states, &ELSEWHERE, "ECONNABORTED")
}

#[test]
fn connections_of_ipv4_are_told_by_who_opened_them() -> Result<()> {
    opened_and_accepted("attach-opened", HOST_V4, GATEWAY_V4)
}

#[test]
fn connections_of_ipv6_are_told_by_who_opened_them() -> Result<()> {
    opened_and_accepted("attach-opened6", HOST_V6, GATEWAY_V6)
}
