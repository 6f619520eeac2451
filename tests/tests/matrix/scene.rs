//! A host that can be reached in more ways than by its addresses, and everything that listens.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempPath;
use tests::{
    capture::Capture,
    listener::{Arrival, Listener, Listeners},
    namespace::Namespace,
    workspace::make_readable,
    world::World,
};

use super::case::PORT;

/// Groups, and the devices on which the host is a member.
const GROUPS: [(&str, &str); 11] = [
    ("239.1.2.3", "eth0"),
    ("239.1.2.4", "br0"),
    ("239.1.2.5", "lo"),
    ("239.1.2.6", "wire1"),
    ("ff02::1:3", "eth0"),
    ("ff02::1:4", "br0"),
    ("ff02::1:5", "lo"),
    ("ff02::1:6", "wire1"),
    ("ff05::1:4", "br0"),
    ("ff0e::1:4", "br0"),
    ("ff01::1:5", "lo"),
];

/// A port for the groups' members. They do not see what is sent; they make the host a member, and
/// its listeners on all addresses take it.
const MEMBERS: u16 = 5353;

/// What turns the address of an outgoing packet into one of the host's.
const NAT: &str = "
table ip nat {
  chain output {
    type nat hook output priority -100;
    ip daddr 198.51.100.50 dnat to 127.0.0.1
    ip daddr 198.51.100.51 dnat to 192.0.2.10
    ip daddr 198.51.100.52 redirect
  }
}
table ip6 nat {
  chain output {
    type nat hook output priority -100;
    ip6 daddr 2001:db8:2::50 dnat to ::1
    ip6 daddr 2001:db8:2::51 dnat to 2001:db8:1::10
    ip6 daddr 2001:db8:2::52 redirect
  }
}
";

/// The world, with all that makes addresses the host's, a third namespace beside it, and listeners.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// A network namespace that is joined to the host by a wire, whose ends are `wire0` there and `wire1` here.
    pub(crate) annex: TempPath,
    /// The program that makes probes without any code of qfence's.
    pub(crate) python: TempPath,
    /// Sees what goes through the host's devices.
    pub(crate) capture: Capture,
    services: Listeners,
    server: Listeners,
    _members: Vec<Listener>,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let world = World::new()?;
        let annex = Namespace::new().context("make the annex")?;
        for namespace in [&world.host, &world.internet, &annex] {
            prepare(namespace)?;
        }
        add_routes(&world.host)?;
        join(&world, &annex)?;
        translate(&world.host)?;
        let members = GROUPS.map(|(group, device)| {
            let group = SocketAddr::new(group.parse()?, MEMBERS);
            Listener::multicast(&world.host, group, device)
        });
        Ok(Self {
            capture: Capture::start(&world.host)?,
            services: Listeners::of_all_kinds(&world.host, PORT)?,
            server: Listeners::of_all_kinds(&world.internet, PORT)?,
            _members: members.into_iter().collect::<Result<_>>()?,
            python: independent_program()?,
            annex: world.mount_namespace(&annex)?,
            world,
        })
    }

    /// What has arrived at the host so far.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.services.arrivals()
    }

    /// What has arrived at the server on the internet so far.
    pub(crate) fn arrivals_outside(&self) -> Vec<Arrival> {
        self.server.arrivals()
    }
}

/// A copy of it that every user can read.
fn independent_program() -> Result<TempPath> {
    let file = tempfile::Builder::new()
        .prefix("qfence-probe-")
        .suffix(".py")
        .tempfile()?
        .into_temp_path();
    fs::write(&file, include_str!("probe.py"))?;
    make_readable(&file)?;
    Ok(file)
}

fn prepare(namespace: &Namespace) -> Result<()> {
    for (name, value) in [
        // Fast open, both ways, without a cookie, on every listener.
        ("net/ipv4/tcp_fastopen", "1543"),
        ("net/ipv4/icmp_echo_ignore_broadcasts", "0"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
        // No limit on answers to echo requests.
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
        ("net/ipv4/conf/all/route_localnet", "1"),
        ("net/ipv4/conf/all/accept_source_route", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv6/conf/all/seg6_enabled", "1"),
        ("net/ipv6/conf/default/seg6_enabled", "1"),
        ("net/ipv6/conf/lo/seg6_enabled", "1"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ] {
        namespace.sysctl(name, value)?;
    }
    Ok(())
}

/// Local routes to prefixes, unicast routes through lo, and local routes that a rule leads to.
fn add_routes(host: &Namespace) -> Result<()> {
    host.ip_batch(
        "route add local 198.18.7.0/24 dev lo\n\
         route add local 2001:db8:a::/64 dev lo\n\
         route add 198.51.100.99 dev lo\n\
         route add local 198.51.100.98 dev lo src 192.0.2.10 table 100\n\
         route add local 2001:db8:2::98 dev lo src 2001:db8:1::10 table 100\n\
         route add local ff00::/8 dev lo table local\n\
         rule add to 198.51.100.98 lookup 100\n\
         route add 224.0.0.0/4 dev eth0\n",
    )?;
    // A batch is of one family, as far as rules go.
    host.ip("-6 rule add to 2001:db8:2::98 lookup 100")
        .map(drop)
}

/// Joins the annex to the host, and through it to the internet.
fn join(world: &World, annex: &Namespace) -> Result<()> {
    world.host.ip_batch(&format!(
        "link add wire1 type veth peer name wire0 netns {}\n\
         link set wire1 up\n\
         address add 10.9.0.1/24 brd + dev wire1\n\
         address add 2001:db8:9::1/64 dev wire1 nodad\n\
         address add fe80::9/64 dev wire1 nodad\n",
        annex.path().display(),
    ))?;
    annex.ip_batch(
        "link set lo up\nlink set wire0 up\n\
         address add 10.9.0.2/24 brd + dev wire0\n\
         address add 2001:db8:9::2/64 dev wire0 nodad\n\
         route add default via 10.9.0.1\nroute add ::/0 via 2001:db8:9::1\n",
    )?;
    world.internet.ip_batch(
        "route add 10.9.0.0/24 via 192.0.2.10\nroute add 2001:db8:9::/64 via 2001:db8:1::10\n",
    )?;
    world.host.sysctl("net/ipv4/ip_forward", "1")?;
    world.host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let host: [IpAddr; 3] = [
        "10.9.0.1".parse()?,
        "2001:db8:9::1".parse()?,
        "fe80::9".parse()?,
    ];
    world.host.await_local(&host)?;
    annex.await_local(&["10.9.0.2".parse()?, "2001:db8:9::2".parse()?])
}

fn translate(host: &Namespace) -> Result<()> {
    let mut child = host
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("start nft (package nftables)")?;
    let mut stdin = child.stdin.take().context("nft has a stdin")?;
    stdin.write_all(NAT.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "nft refused:\n{NAT}");
    Ok(())
}
