//! Groups of multicast: to join one makes the kernel send reports, which pass no other hook. So a join is judged as a
//! datagram to the group would be.

use std::{
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use tests::{fence::Fence, namespace::NOBODY, probe, run::HANG, world::World};

/// Groups with bits that a joiner has chosen.
const GROUPS: [&str; 2] = ["239.17.34.51", "ff02::1122:3344"];

/// Longer than the kernel waits before it reports a member (`IGMP_V3_UNSOLICITED_REPORT_INTERVAL`, and the same of
/// MLD), by chance: one second each.
const REPORTED_WITHIN: Duration = Duration::from_secs(3);

/// Services on the host that listen to reports of members: what a multicast router does.
struct Routers {
    v4: Socket,
    v6: Socket,
}

impl Routers {
    fn new(world: &World) -> Result<Self> {
        world.host.run(|| {
            let open = |domain, protocol: i32| -> Result<Socket> {
                let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let v4 = open(Domain::IPV4, 2)?;
            v4.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 22), &Ipv4Addr::new(192, 0, 2, 10))?;
            let v6 = open(Domain::IPV6, 58)?;
            let reports: Ipv6Addr = "ff02::16".parse()?;
            v6.join_multicast_v6(&reports, if_nametoindex("eth0")?)?;
            Ok(Self { v4, v6 })
        })
    }

    /// Whether they hear of the group before that moment.
    fn hear_of(&self, group: IpAddr, until: Instant) -> Result<bool> {
        let (socket, octets) = match group {
            IpAddr::V4(v4) => (&self.v4, v4.octets().to_vec()),
            IpAddr::V6(v6) => (&self.v6, v6.octets().to_vec()),
        };
        while Instant::now() < until {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let bytes: Vec<u8> = buffer[..length]
                        .iter()
                        // SAFETY: the kernel has written as many.
                        .map(|byte| unsafe { byte.assume_init() })
                        .collect();
                    if bytes.windows(octets.len()).any(|part| part == octets) {
                        return Ok(true);
                    }
                }
                Err(_) => sleep(Duration::from_millis(10)),
            }
        }
        Ok(false)
    }
}

/// What the probe says of each way to join a group.
fn lines(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(way, ending)| (way.to_owned(), ending.to_owned()))
        .collect()
}

#[test]
fn a_join_reports_nothing_to_the_host() -> Result<()> {
    let world = World::new()?;
    let probe = probe::program()?;
    for group in GROUPS {
        let routers = Routers::new(&world)?;
        let argument = format!("{group}/eth0");
        let address: IpAddr = group.parse()?;
        let fence = Fence::new("join")?.with(&["--user", "nobody"]);
        let mut inside = fence.command(&world.host, &probe);
        let inside = lines(&probe::output(inside.args(["--join", &argument]))?);
        ensure!(!inside.is_empty(), "the probe says nothing");
        for (way, ending) in &inside {
            assert_eq!(ending, "EPERM", "{group}: {way}");
        }
        let refusal = fence.await_refusal(|refusal| refusal.hook == "setsockopt")?;
        assert_eq!(
            (&*refusal.destination, &*refusal.rule),
            (group, "deny host")
        );
        let until = Instant::now() + REPORTED_WITHIN;
        ensure!(
            !routers.hear_of(address, until)?,
            "{group}: it was reported"
        );

        // The control: outside each way works, and is heard of.
        let mut outside = world.host.command_as(NOBODY, &probe);
        let outside = lines(&probe::output(outside.args(["--join", &argument]))?);
        for (way, ending) in &outside {
            assert_eq!(ending, "joined", "control: {group}: {way}");
        }
        assert_eq!(outside.len(), inside.len());
        let until = Instant::now() + HANG;
        ensure!(routers.hear_of(address, until)?, "control: {group}");
    }
    Ok(())
}

#[test]
fn a_group_that_a_rule_allows_can_be_joined() -> Result<()> {
    let world = World::new()?;
    let probe = probe::program()?;
    for group in GROUPS {
        let rule = match group.contains(':') {
            true => format!("udp:[{group}]"),
            false => format!("udp:{group}"),
        };
        let fence = Fence::new("member")?.with(&["--user", "nobody", "--allow", &rule]);
        let mut inside = fence.command(&world.host, &probe);
        let inside = probe::output(inside.args(["--join", &format!("{group}/eth0")]))?;
        let ways = lines(&inside);
        let first = ways.first().context("the probe says nothing")?;
        ensure!(!first.1.is_empty());
        for (way, ending) in ways {
            assert_eq!(ending, "joined", "{group}: {way}");
        }
        assert_eq!(fence.refusals()?, []);
    }
    Ok(())
}
