//! An address that turns the host's while a socket is connected to it. The fence's supervisor is
//! stopped meanwhile, so that nothing but the packet itself can tell.

use std::net::{IpAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use qfence_user::probe::{Ending, ProbeResult, Step};
use tests::{
    capture::{DELIVERED, Seen, list},
    fence::{Fence, verifier},
    probe::read_lines,
    run::{wait_until, without_sudo},
    shell::Shell,
    world::{SERVER_V4, SERVER_V6},
};

use super::{case::PORT, scene::Scene};

/// The server, and where raw sockets send to it from.
const SERVERS: [(IpAddr, &str); 2] = [
    (SERVER_V4, "+src=192.0.2.10"),
    (SERVER_V6, "+src=2001:db8:1::10"),
];

/// A port of the server's at which connections stand, and nobody says anything.
const SILENT: u16 = 8081;

const BY_ANYBODY: [&str; 7] = [
    "udp-connected",
    "udp-uring-connected",
    "udp-reconnected",
    "udp-splice",
    "udp",
    "ping-connected",
    "ping",
];
const BY_ROOT: [&str; 2] = ["raw-udp-connected", "raw-icmp-connected"];

fn specs(way: &str) -> [String; 2] {
    SERVERS.map(|(server, source)| {
        let port = match way.split('-').next() {
            Some("ping") => String::new(),
            _ if way.starts_with("raw-icmp") => String::new(),
            Some("tcp" | "mptcp") => format!("/{SILENT}"),
            _ => format!("/{PORT}"),
        };
        let source = if way.starts_with("raw-") { source } else { "" };
        let decoy = match way.ends_with("-reconnected") {
            true => format!("+decoy={server}"),
            false => String::new(),
        };
        format!("{way}/{server}{port}{source}{decoy}+pause")
    })
}

/// What came of an attempt at what turned the host's.
struct Late {
    outcome: ProbeResult,
    arrived: bool,
    /// On the way to the host itself.
    seen: Vec<Seen>,
}

/// Makes an attempt at the server, and gives the server's addresses to the host before anything is
/// sent.
fn turned(scene: &Scene, shell: &mut Shell, spec: &str) -> Result<Late> {
    let program = verifier()?;
    shell.tell(&format!(
        "{} probe --timeout-ms 300 {spec}",
        program.display()
    ))?;
    let paused = shell.next_line()?;
    ensure!(paused.contains("\"paused\":true"), "{spec}: {paused}");
    for (server, _) in SERVERS {
        scene.world.add_host_address(server, "br0")?;
    }
    scene.capture.settle()?;
    let before = scene.arrivals().len();
    shell.tell("")?;
    let outcome = read_lines(&shell.next_line()?)?.pop();
    let arrived = scene.arrivals().len() > before;
    let mut seen = scene.capture.take()?;
    // The server may be heard as well, to which nothing gets through any more.
    seen.retain(|seen| ["lo", DELIVERED].contains(&seen.device.as_str()));
    scene
        .world
        .host_ip(&format!("-4 address del {SERVER_V4}/32 dev br0"))?;
    scene
        .world
        .host_ip(&format!("-6 address del {SERVER_V6}/128 dev br0"))?;
    scene.capture.settle()?;
    Ok(Late {
        outcome: outcome.context("no outcome")?,
        arrived,
        seen,
    })
}

/// Stops the supervisor at a moment at which the server's addresses are not the host's to the fence, as
/// they were for the attempt before.
fn stop_when_remote(inside: &mut Shell) -> Result<()> {
    let attempts = SERVERS.map(|(server, _)| format!("udp-connected/{server}/{PORT}"));
    wait_until("the server is remote again", || {
        inside.signal(Signal::SIGSTOP)?;
        let mut words = vec!["--timeout-ms", "1"];
        words.extend(attempts.iter().map(String::as_str));
        let is_remote = !inside
            .attempt(&words)?
            .iter()
            .any(|outcome| outcome.failed_with("ECONNREFUSED"));
        if !is_remote {
            inside.signal(Signal::SIGCONT)?;
        }
        Ok(is_remote)
    })
}

/// Makes attempts outside, and in a fence whose supervisor is stopped, with these options.
fn outside_and_inside(
    scene: &Scene,
    ways: &[&str],
    options: &[&str],
    mut judge: impl FnMut(&str, &Late, &Late),
) -> Result<()> {
    let mut outside = Shell::start(scene.world.host.command("sh"))?;
    let fence = Fence::new("late")?.with(options);
    let mut command = fence.command(&scene.world.host, "sh");
    without_sudo(&mut command);
    let mut inside = Shell::start(command)?;
    for spec in ways.iter().flat_map(|way| specs(way)) {
        let control = turned(scene, &mut outside, &spec)?;
        stop_when_remote(&mut inside)?;
        let late = turned(scene, &mut inside, &spec);
        inside.signal(Signal::SIGCONT)?;
        judge(&spec, &control, &late?);
    }
    Ok(())
}

/// Every packet comes to the host outside, and none does inside.
pub(crate) fn packets_are_refused() -> Result<()> {
    let scene = Scene::new()?;
    let mut wrong = Vec::new();
    let mut judge = |spec: &str, control: &Late, late: &Late| {
        if !control.arrived && control.outcome.ending != Ending::Reached {
            wrong.push(format!("control: {spec}: {}", control.describe()));
        }
        let refused = late.outcome.failed_at(Step::Send, "EPERM")
            // Which does not tell (`ping_v6_sendmsg` in net/ipv6/ping.c).
            || (spec.starts_with("ping") && late.outcome.ending == Ending::Sent);
        if late.arrived || !late.seen.is_empty() || !refused {
            wrong.push(format!("fenced: {spec}: {}", late.describe()));
        }
    };
    outside_and_inside(&scene, &BY_ANYBODY, &["--user", "nobody"], &mut judge)?;
    outside_and_inside(&scene, &BY_ROOT, &["--allow-raw"], &mut judge)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A connection that stood is not carried on to the host, which knows no such connection anyhow:
/// nothing arrives at a service, even one on the same port, nor, with the fence, at the host's TCP.
pub(crate) fn connections_reach_nobody() -> Result<()> {
    let scene = Scene::new()?;
    let listen = || Ok(TcpListener::bind(("::", SILENT))?);
    let _standing = scene.world.internet.run(listen)?;
    let service = scene.world.host.run(listen)?;
    service.set_nonblocking(true)?;
    let mut wrong = Vec::new();
    let judge = |spec: &str, control: &Late, late: &Late| {
        if !control.seen.iter().any(|seen| seen.device == "lo") {
            wrong.push(format!("control: {spec}: {}", control.describe()));
        }
        if !late.seen.is_empty() {
            wrong.push(format!("fenced: {spec}: {}", late.describe()));
        }
        for made in [control, late] {
            if made.arrived || service.accept().is_ok() || made.outcome.reply.is_some() {
                wrong.push(format!("{spec}: {}", made.describe()));
            }
        }
    };
    outside_and_inside(&scene, &["tcp", "mptcp"], &["--user", "nobody"], judge)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

impl Late {
    fn describe(&self) -> String {
        let arrived = if self.arrived { "ARRIVED; " } else { "" };
        format!("{:?}; {arrived}{}", self.outcome, list(&self.seen))
    }
}
