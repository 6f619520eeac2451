//! Every address that is the host, in every spelling, is refused to an unprivileged process in the
//! fence, and reached by the same process outside.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, Refusal},
    listener::{Arrival, Listener, Listeners},
    namespace::NOBODY,
    probe::{self, ProbeResult},
    world::{BRIDGE_V4, BRIDGE_V6, HOST_LINK_LOCAL, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
/// Of the groups: a socket for one address does not share a port with those for all.
const GROUP_PORT: u16 = 5353;

/// Prefixes that are local as a whole (AnyIP), beside the host's own addresses.
const ANY_IP: [&str; 2] = ["198.18.7.0/24", "2001:db8:a::/64"];

/// What TCP and UDP reach the host by.
const UNICAST: [&str; 16] = [
    "0.0.0.0",
    "127.0.0.1",
    "127.9.9.9",
    "192.0.2.10",
    "203.0.113.5",
    "198.18.7.77",
    "::",
    "::1",
    "2001:db8:1::10",
    "2001:db8:3::5",
    "2001:db8:a::77",
    "fe80::10%eth0",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "::ffff:192.0.2.10",
    "::ffff:198.18.7.77",
];

/// What UDP alone reaches the host by.
const BROADCAST: [&str; 4] = [
    "255.255.255.255",
    "192.0.2.255",
    "203.0.113.255",
    "::ffff:192.0.2.255",
];

/// Groups that the host is a member of on eth0.
const MULTICAST: [&str; 3] = ["239.1.2.3", "ff02::1234%eth0", "::ffff:239.1.2.3"];

const ALL_WAYS: [&str; 3] = ["tcp", "udp", "udp-connected"];
const UDP_WAYS: [&str; 2] = ["udp", "udp-connected"];

fn attempts(ways: &[&str], addresses: &[&str]) -> Vec<String> {
    let by = |address: &&str| -> Vec<String> {
        ways.iter()
            .map(|way| format!("{way}/{address}/{PORT}"))
            .collect()
    };
    addresses.iter().flat_map(by).collect()
}

/// A host that listens on all it has, and an internet that listens too.
struct Scene {
    world: World,
    services: Listeners,
    members: Listeners,
    server: Listeners,
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        for prefix in ANY_IP {
            world.host_ip(&format!("route add local {prefix} dev lo"))?;
        }
        let services = Listeners::everywhere(&world.host, PORT)?;
        let groups: [SocketAddr; 2] = [
            format!("239.1.2.3:{GROUP_PORT}").parse()?,
            format!("[ff02::1234]:{GROUP_PORT}").parse()?,
        ];
        let members = groups.map(|group| Listener::multicast(&world.host, group, "eth0"));
        let members = members.into_iter().collect::<Result<Vec<_>>>()?.into();
        let server = Listeners::everywhere(&world.internet, PORT)?;
        Ok(Self {
            world,
            services,
            members,
            server,
        })
    }

    fn arrivals(&self) -> Vec<Arrival> {
        [self.services.arrivals(), self.members.arrivals()].concat()
    }

    fn outside(&self, attempts: &[String]) -> Result<Vec<ProbeResult>> {
        let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
        probe::run_as(NOBODY, &self.world.host, &attempts)
    }

    fn inside(&self, fence: &Fence, attempts: &[String]) -> Result<Vec<ProbeResult>> {
        probe::run_command(
            fence
                .command(&self.world.host, probe::program()?)
                .args(attempts),
        )
    }
}

/// Whether only the packet layer refuses an attempt: a UDP socket can be connected to the unspecified address, and then leads
/// nowhere (`unspecified.rs`).
fn is_led_nowhere(attempt: &str) -> bool {
    let to = |address: &str| attempt.starts_with(&format!("udp-connected/{address}/"));
    to("0.0.0.0") || to("::")
}

/// Makes the attempts outside, where each must arrive, and inside, where none may.
fn refused_inside_and_arriving_outside(label: &str, ways: &[&str], to: &[&str]) -> Result<()> {
    let scene = Scene::new()?;
    let attempts = attempts(ways, to);
    for attempt in &attempts {
        let before = scene.arrivals().len();
        let outcomes = scene.outside(std::slice::from_ref(attempt))?;
        assert!(scene.arrivals().len() > before, "control: {outcomes:?}");
    }
    let before = scene.arrivals().len();

    let fence = Fence::new(label)?.with(&["--user", "nobody"]);
    let outcomes = scene.inside(&fence, &attempts)?;
    for (attempt, outcome) in attempts.iter().zip(&outcomes) {
        let errno = if is_led_nowhere(attempt) {
            "EPERM"
        } else {
            "ECONNREFUSED"
        };
        assert!(outcome.failed_with(errno), "{outcome:?}");
    }
    assert_eq!(outcomes.len(), attempts.len());
    let after = scene.arrivals();
    assert_eq!(after.len(), before, "{:?}", &after[before..]);

    let refusals = fence.refusals()?;
    // Two spellings of an address are one kind.
    let told: u64 = refusals.iter().map(|refusal| refusal.count).sum();
    assert_eq!(told, attempts.len() as u64, "{refusals:#?}");
    for attempt in &attempts {
        let protocol = attempt
            .split(['/', '-'])
            .next()
            .context("an attempt has a way")?;
        let is_it = |refusal: &&Refusal| {
            refusal.protocol == protocol && attempt.ends_with(&format!("/{}", refusal.port))
        };
        assert!(
            refusals.iter().any(|refusal| is_it(&refusal)),
            "{attempt}: {refusals:?}"
        );
    }
    for refusal in &refusals {
        assert_eq!(refusal.rule, "deny host", "{refusal:?}");
    }
    Ok(())
}

#[test]
fn every_unicast_spelling_is_refused() -> Result<()> {
    refused_inside_and_arriving_outside("unicast", &ALL_WAYS, &UNICAST)
}

#[test]
fn subnet_and_limited_broadcast_are_refused() -> Result<()> {
    refused_inside_and_arriving_outside("broadcast", &UDP_WAYS, &BROADCAST)
}

#[test]
fn multicast_is_refused() -> Result<()> {
    refused_inside_and_arriving_outside("multicast", &UDP_WAYS, &MULTICAST)
}

#[test]
fn tcp_to_broadcast_and_multicast_is_refused_by_the_fence_not_the_network() -> Result<()> {
    let scene = Scene::new()?;
    let attempts = attempts(&["tcp"], &[&BROADCAST[..], &MULTICAST].concat());
    // No TCP goes there outside either; the error shows whose no it is.
    for outcome in scene.outside(&attempts)? {
        assert!(
            !outcome.is_reached() && !outcome.failed_with("ECONNREFUSED"),
            "{outcome:?}"
        );
    }
    let fence = Fence::new("tcp-group")?.with(&["--user", "nobody"]);
    for outcome in scene.inside(&fence, &attempts)? {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn the_internet_and_the_neighbours_stay() -> Result<()> {
    let scene = Scene::new()?;
    let neighbours = [
        "198.51.100.7",
        "2001:db8:2::7",
        "::ffff:198.51.100.7",
        "192.0.2.1",
        "2001:db8:1::1",
    ];
    let attempts = attempts(&ALL_WAYS, &neighbours);
    let fence = Fence::new("internet")?.with(&["--user", "nobody"]);
    for outcome in scene.inside(&fence, &attempts)? {
        assert!(outcome.says("hello from"), "{outcome:?}");
    }
    assert_eq!(scene.server.arrivals().len(), attempts.len());
    assert_eq!(fence.refusals()?, []);
    Ok(())
}

#[test]
fn the_error_is_the_one_asked_for() -> Result<()> {
    let scene = Scene::new()?;
    for (word, errno) in [
        ("refused", "ECONNREFUSED"),
        ("unreachable", "EHOSTUNREACH"),
        ("denied", "EACCES"),
    ] {
        let fence = Fence::new(word)?.with(&["--user", "nobody", "--deny-with", word]);
        for outcome in scene.inside(&fence, &attempts(&ALL_WAYS, &["127.0.0.1", "::1"]))? {
            assert!(outcome.failed_with(errno), "{outcome:?}");
        }
    }
    Ok(())
}

/// The table above is of the addresses that the world has: should those change, so must it.
#[test]
fn the_table_names_every_address_of_the_host() {
    for address in [HOST_V4, HOST_V6, BRIDGE_V4, BRIDGE_V6] {
        assert!(UNICAST.contains(&address.to_string().as_str()), "{address}");
    }
    assert!(UNICAST.contains(&format!("{HOST_LINK_LOCAL}%eth0").as_str()));
    for address in [SERVER_V4, SERVER_V6] {
        assert!(
            !UNICAST.contains(&address.to_string().as_str()),
            "{address}"
        );
    }
}
