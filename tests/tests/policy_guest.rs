//! A real guest, through QEMU's user network, under the policies that people will write: what each
//! names is reached, and what lies beside it is not.

use std::net::IpAddr;

use anyhow::Result;
use tests::{
    fence::Fence,
    guest::{Guest, Options},
    listener::{Arrival, Listeners},
    probe::ProbeResult,
    world::{SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
/// A port of the host's that policies name, and the one beside it.
const DATABASE: u16 = 5432;
const BESIDE: u16 = DATABASE + 1;

/// The host's loopback as a guest names it, and as policies do, in both families.
const HOST: [(&str, &str); 2] = [("10.0.2.2", "127.0.0.1"), ("fec0::2", "[::1]")];
/// Other machines of private networks.
const NEIGHBOURS: [&str; 4] = ["10.77.0.9", "192.168.7.9", "fd77::9", "fec0:0:0:77::9"];
/// The metadata service of a cloud.
const METADATA: [&str; 2] = ["169.254.169.254", "fd00:ec2::254"];
const WAYS: [&str; 2] = ["tcp", "udp"];

/// Far more than anything takes that succeeds, or is refused at once.
const PATIENCE_MS: &str = "5000";

/// A host with services on three ports, and machines of all kinds with one on a fourth.
struct Scene {
    world: World,
    of_host: Listeners,
    elsewhere: Listeners,
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let mut new = Vec::new();
        for address in NEIGHBOURS.iter().chain(&METADATA) {
            let length = if address.contains(':') {
                "128 nodad"
            } else {
                "32"
            };
            world
                .internet
                .ip(&format!("address add {address}/{length} dev lo"))?;
            new.push(address.parse()?);
        }
        world.internet.await_local(&new)?;
        let mut of_host = Vec::new();
        for port in [PORT, DATABASE, BESIDE] {
            of_host.extend(Listeners::everywhere(&world.host, port)?.into_inner());
        }
        Ok(Self {
            of_host: of_host.into(),
            elsewhere: Listeners::everywhere(&world.internet, PORT)?,
            world,
        })
    }

    /// A guest under these options of `exec`; without a fence if there is none.
    fn guest(&self, fence: Option<&Fence>) -> Result<Guest> {
        let launcher = fence.map(Fence::launcher).unwrap_or_default();
        Guest::boot(&self.world, &launcher, &Options::default())
    }

    /// What has arrived anywhere by now.
    fn arrivals(&self) -> Vec<Arrival> {
        let mut all = self.of_host.arrivals();
        all.extend(self.elsewhere.arrivals());
        all
    }

    /// Has the guest try all of these by TCP and UDP: it reaches those in `open` and no other, and what
    /// it does not reach has nothing arrive.
    fn expect(&self, guest: &mut Guest, all: &[String], open: &[String]) -> Result<()> {
        let before = self.arrivals().len();
        let (open, closed): (Vec<_>, Vec<_>) = all.iter().partition(|one| open.contains(one));
        let (tcp, udp): (Vec<_>, Vec<_>) =
            closed.into_iter().partition(|one| one.starts_with("tcp"));
        for outcome in probe(guest, PATIENCE_MS, &open)? {
            assert!(outcome.says("hello from"), "{outcome:?}");
        }
        for outcome in probe(guest, PATIENCE_MS, &tcp)? {
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
        }
        // Nothing is to come of these; that they do not arrive is asked below.
        for outcome in probe(guest, "200", &udp)? {
            assert!(!outcome.is_reached(), "{outcome:?}");
        }
        let arrived = self.arrivals().len() - before;
        assert_eq!(arrived, open.len());
        Ok(())
    }
}

fn probe(guest: &mut Guest, timeout_ms: &str, attempts: &[&String]) -> Result<Vec<ProbeResult>> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let mut arguments = vec!["--timeout-ms", timeout_ms];
    arguments.extend(attempts.iter().map(|attempt| attempt.as_str()));
    guest.probe(&arguments)
}

fn attempts<'a>(
    ways: &[&str],
    addresses: impl IntoIterator<Item = &'a str>,
    port: u16,
) -> Vec<String> {
    let by = |address: &'a str| -> Vec<String> {
        let attempt = |way: &&str| format!("{way}/{address}/{port}");
        ways.iter().map(attempt).collect()
    };
    addresses.into_iter().flat_map(by).collect()
}

fn servers() -> Vec<String> {
    [SERVER_V4, SERVER_V6]
        .map(|address: IpAddr| address.to_string())
        .into()
}

/// The host's three ports, the neighbours, the metadata services and the internet.
fn everything() -> Vec<String> {
    let aliases = || HOST.iter().map(|(alias, _)| *alias);
    let mut all: Vec<String> = [PORT, DATABASE, BESIDE]
        .iter()
        .flat_map(|&port| attempts(&WAYS, aliases(), port))
        .collect();
    all.extend(attempts(&WAYS, NEIGHBOURS, PORT));
    all.extend(attempts(&WAYS, METADATA, PORT));
    all.extend(attempts(&WAYS, servers().iter().map(String::as_str), PORT));
    all
}

fn fence(label: &str, options: &[&str]) -> Result<Fence> {
    Ok(Fence::new(label)?.with(&["--user", "nobody"]).with(options))
}

#[test]
fn one_port_of_the_host_is_reached_and_no_other() -> Result<()> {
    let scene = Scene::new()?;
    let all = everything();
    // The control: without a fence it reaches everything.
    scene.expect(&mut scene.guest(None)?, &all, &all)?;

    let rules = HOST.map(|(_, loopback)| format!("tcp:{loopback}:{DATABASE}"));
    let fence = fence("one-port", &["--allow", &rules[0], "--allow", &rules[1]])?;
    let mut guest = scene.guest(Some(&fence))?;
    let mut open = attempts(&["tcp"], HOST.map(|(alias, _)| alias), DATABASE);
    open.extend(attempts(&WAYS, NEIGHBOURS, PORT));
    open.extend(attempts(&WAYS, METADATA, PORT));
    open.extend(attempts(&WAYS, servers().iter().map(String::as_str), PORT));
    scene.expect(&mut guest, &all, &open)?;
    for (destination, port) in [("127.0.0.1", BESIDE), ("::1", BESIDE)] {
        fence.await_refusal(|refusal| {
            (refusal.destination.as_str(), refusal.port) == (destination, port)
                && refusal.rule == "deny host"
        })?;
    }
    Ok(())
}

#[test]
fn internet_only_is_neither_neighbours_nor_metadata() -> Result<()> {
    let scene = Scene::new()?;
    let all = everything();
    let internet = attempts(&WAYS, servers().iter().map(String::as_str), PORT);
    let fence = fence("internet-only", &["--profile", "internet-only"])?;
    scene.expect(&mut scene.guest(Some(&fence))?, &all, &internet)?;
    for destination in NEIGHBOURS.iter().chain(&METADATA) {
        let refusal = fence.await_refusal(|refusal| refusal.destination == *destination)?;
        assert_eq!(refusal.rule, "deny host lan link-local and 2 more");
    }
    Ok(())
}

/// The control of the above: with the profile `host` all that is not the host is reached.
#[test]
fn the_host_alone_is_out_of_reach_by_default() -> Result<()> {
    let scene = Scene::new()?;
    let all = everything();
    let mut open = attempts(&WAYS, NEIGHBOURS, PORT);
    open.extend(attempts(&WAYS, METADATA, PORT));
    open.extend(attempts(&WAYS, servers().iter().map(String::as_str), PORT));
    let fence = fence("profile-host", &["--profile", "host"])?;
    scene.expect(&mut scene.guest(Some(&fence))?, &all, &open)
}

#[test]
fn locked_is_nothing_but_what_is_allowed() -> Result<()> {
    let scene = Scene::new()?;
    let all = everything();
    for (label, options, open) in [
        ("locked", &["--profile", "locked"][..], Vec::new()),
        (
            "locked-but",
            &[
                "--profile",
                "locked",
                "--allow",
                "tcp:198.51.100.0/24:8000-8080",
                "--allow",
                "udp:[2001:db8:2::]/48:8080",
                "--allow",
                "tcp:[fd77::9]",
                "--allow",
                "udp:192.168.7.9:1,8080",
            ][..],
            [
                format!("tcp/{SERVER_V4}/{PORT}"),
                format!("udp/{SERVER_V6}/{PORT}"),
                format!("tcp/fd77::9/{PORT}"),
                format!("udp/192.168.7.9/{PORT}"),
            ]
            .into(),
        ),
    ] {
        let fence = fence(label, options)?;
        scene.expect(&mut scene.guest(Some(&fence))?, &all, &open)?;
    }
    Ok(())
}
