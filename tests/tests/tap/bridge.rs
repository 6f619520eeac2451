//! Others in the bridge of a fenced guest, who are not fenced.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use tests::{
    listener::Listeners,
    namespace::Namespace,
    probe,
    tap::{
        Header, Link,
        relay::Relay,
        scene::{
            GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, HOST, NEIGHBOUR_V4, NEIGHBOUR_V6, PORT,
            SERVER_V4, SERVER_V6, make_tap,
        },
    },
};

use super::{
    bed::fence,
    matrix::kind,
    stack::{Guest, probes},
};

/// Another guest of the same host, with a tap device of its own.
struct Other {
    guest: Namespace,
    _relay: Relay,
}

impl Other {
    fn new(host: &Namespace) -> Result<Self> {
        make_tap(host, "tap1", Header::Virtio)?;
        host.ip("link set tap1 master br0")?;
        let guest = Namespace::new()?;
        let relay = Relay::start(host, "tap1", &guest, Header::Virtio)?;
        guest.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        guest.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        guest.ip_batch(
            "link set eth0 address 02:00:00:00:00:20\nlink set lo up\nlink set eth0 up\n\
             address add 192.168.122.20/24 brd + dev eth0\n\
             address add fd00:122::20/64 dev eth0 nodad\n\
             route add default via 192.168.122.1\nroute add default via fd00:122::1\n",
        )?;
        guest.await_local(&["192.168.122.20".parse()?, "fd00:122::20".parse()?])?;
        Ok(Self {
            guest,
            _relay: relay,
        })
    }

    fn reaches(&self, probes: &[String]) -> Result<()> {
        let mut words = vec!["--timeout-ms", "1500"];
        words.extend(probes.iter().map(String::as_str));
        for outcome in probe::run(&self.guest, &words)? {
            ensure!(outcome.is_reached(), "the other guest: {outcome:?}");
        }
        Ok(())
    }
}

#[test]
fn an_unfenced_guest_in_the_same_bridge_is_not_touched() -> Result<()> {
    let there = Guest::new(kind(Link::Bridged, Header::Virtio, true))?;
    let other = Other::new(&there.scene.host)?;
    let _served = Listeners::everywhere(&there.guest, PORT)?;
    let all: Vec<IpAddr> = HOST
        .into_iter()
        .chain([SERVER_V4, SERVER_V6, GUEST_V4, GUEST_V6])
        .collect();
    let probes = probes(&["tcp", "udp", "ping"], &all);
    other.reaches(&probes)?;
    let (_fence, shell) = fence(&there.scene, "beside", &[])?;
    // The fence is there: the same host refuses its guest.
    let host = super::stack::probes(&["tcp"], &[GATEWAY_V4, GATEWAY_V6]);
    for outcome in there.probe(&host)? {
        ensure!(!outcome.is_reached(), "{outcome:?}");
    }
    other.reaches(&probes)?;
    shell.kill_supervisor()?;
    other.reaches(&probes)?;
    Ok(())
}

/// The policy decides on what is not the host: by default a guest reaches others in its network.
#[test]
fn a_fenced_guest_reaches_its_neighbour_unless_a_rule_denies_it() -> Result<()> {
    let there = Guest::new(kind(Link::Bridged, Header::Virtio, false))?;
    let _served = Listeners::everywhere(&there.scene.neighbour, PORT)?;
    let neighbours = probes(&["tcp", "udp", "ping"], &[NEIGHBOUR_V4, NEIGHBOUR_V6]);
    {
        let (_fence, shell) = fence(&there.scene, "lan", &[])?;
        for outcome in there.probe(&neighbours)? {
            ensure!(outcome.is_reached(), "{outcome:?}\n{}", shell.stderr());
        }
    }
    let (fence, shell) = fence(&there.scene, "no-lan", &["--deny", "lan"])?;
    for outcome in there.probe(&neighbours)? {
        ensure!(!outcome.is_reached(), "{outcome:?}");
    }
    fence.await_refusal(|refusal| {
        refusal.rule == "deny lan" && refusal.destination == NEIGHBOUR_V4.to_string()
    })?;
    for outcome in there.probe(&probes(&["tcp"], &[SERVER_V4, SERVER_V6]))? {
        ensure!(outcome.is_reached(), "{outcome:?}\n{}", shell.stderr());
    }
    Ok(())
}
