//! The host of a guest with a tap device, and its networks.
//!
//! ```text
//! guest ── tap0 ──┐                host                         internet
//!          (br0) or tap0: 192.168.122.1/24 fd00:122::1  fe80::1
//! neighbour ─ port9 ┘      nic2: 10.50.0.1/24 fd50::1  ──────── lan
//!                          up:   10.9.0.2/24  fd09::2  ──────── inet 10.9.0.1 fd09::1, 203.0.113.5, 2001:db8:5::5
//!                          vx0:  10.77.0.1/24, a tunnel whose other end is the guest
//! ```
//! The host forwards, and translates what leaves by `wan`. All neighbours are known for good, so the host asks for none.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use super::{
    evidence::Evidence,
    tools::{bridge as bridge_command, ip, nft, path, set, set_if_there},
};
use crate::{
    probe::frame::{Header, Tap, wire::Mac},
    verify::{
        listeners::{Arrival, Listener, Listeners},
        netns::Netns,
        wire::Wire,
    },
};

/// The tap device.
pub const TAP: &str = "tap0";
/// The port of the listeners.
pub const PORT: u16 = 8080;
/// The port of a socket that receives what is for any address (`IP_TRANSPARENT`).
pub const TRANSPARENT: u16 = 8099;
/// The user and group of the device.
const NOBODY: u32 = 65534;
/// The number of the tunnel.
pub const TUNNEL: u32 = 42;

/// The MAC address of the guest.
pub const GUEST_MAC: Mac = [2, 0, 0, 0, 0, 0x10];
/// The MAC address of the host in the guest's network.
pub const GATEWAY_MAC: Mac = [2, 0, 0, 0, 1, 1];
/// The MAC address of the neighbour.
pub const NEIGHBOUR_MAC: Mac = [2, 0, 0, 0, 0, 9];
/// The MAC address of the host's end of the tunnel.
pub const TUNNEL_MAC: Mac = [2, 0, 0, 0, 0, 0x77];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, last))
}

/// The guest.
pub const GUEST_V4: IpAddr = v4(192, 168, 122, 10);
/// The guest.
pub const GUEST_V6: IpAddr = v6(0xfd00, 0x122, 0x10);
/// The guest.
pub const GUEST_LOCAL: IpAddr = v6(0xfe80, 0, 0x10);
/// The host in the guest's network.
pub const GATEWAY_V4: IpAddr = v4(192, 168, 122, 1);
/// The host in the guest's network.
pub const GATEWAY_V6: IpAddr = v6(0xfd00, 0x122, 1);
/// The host in the guest's network.
pub const GATEWAY_LOCAL: IpAddr = v6(0xfe80, 0, 1);
/// The host in another network.
pub const OTHER_V4: IpAddr = v4(10, 50, 0, 1);
/// The host in another network.
pub const OTHER_V6: IpAddr = v6(0xfd50, 0, 1);
/// The host in the network that leads to the internet.
pub const UPLINK_V4: IpAddr = v4(10, 9, 0, 2);
/// The host in the network that leads to the internet.
pub const UPLINK_V6: IpAddr = v6(0xfd09, 0, 2);
/// The host in the tunnel.
pub const TUNNEL_V4: IpAddr = v4(10, 77, 0, 1);
/// The neighbour in the bridge.
pub const NEIGHBOUR_V4: IpAddr = v4(192, 168, 122, 9);
/// The neighbour in the bridge.
pub const NEIGHBOUR_V6: IpAddr = v6(0xfd00, 0x122, 9);
/// A server on the internet.
pub const SERVER_V4: IpAddr = v4(203, 0, 113, 5);
/// A server on the internet.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5));

/// All addresses of the host.
pub const HOST: [IpAddr; 7] = [
    GATEWAY_V4, OTHER_V4, UPLINK_V4, GATEWAY_V6, OTHER_V6, UPLINK_V6, TUNNEL_V4,
];

/// Groups of which the host is a member in the guest's network.
const GROUPS: [&str; 5] = [
    "224.0.0.251",
    "224.0.0.252",
    "239.255.255.250",
    "ff02::fb",
    "ff02::1:2",
];

/// Translation of what leaves by the uplink.
const MASQUERADE: &str = "
table ip out { chain post { type nat hook postrouting priority 100; oifname wan masquerade; }; }
table ip6 out { chain post { type nat hook postrouting priority 100; oifname wan masquerade; }; }
";

/// What the host asks itself, such as for nameservers, is not counted as arrived.
const QUIET: &str = "
table inet quiet { chain out { type filter hook output priority 0; oifname lo meta l4proto { udp, tcp } th dport 53 drop; }; }
";

/// How the device is connected to the host's networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// It has the host's addresses, and nobody else is in its network.
    Routed,
    /// It is a port of a bridge, which has the host's addresses; so is the neighbour.
    Bridged,
}

impl Link {
    /// The word for it in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Bridged => "bridged",
        }
    }
}

/// What differs from scene to scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How the device is connected.
    pub link: Link,
    /// What precedes each frame.
    pub header: Header,
    /// Whether netfilter sees the packets of the bridge (`bridge-nf-call-iptables`).
    pub filters_bridge: bool,
}

/// The host and its networks. They end with this value, and with the processes inside.
#[derive(Debug)]
pub struct Scene<N> {
    /// What differs.
    pub kind: Kind,
    /// The host.
    pub host: N,
    /// The internet, and the other network of the host.
    pub internet: N,
    /// The neighbour in the bridge.
    pub neighbour: N,
    services: Listeners,
    servers: Listeners,
    _members: Vec<Listener>,
    _transparent: Socket,
}

impl<N: AsRef<Netns>> Scene<N> {
    /// Lays out a scene in three new network namespaces: the host, the internet, the neighbour. The tap device is not open,
    /// and belongs to an unprivileged user.
    ///
    /// # Errors
    /// If a command is not installed, or the kernel refuses something.
    pub fn lay_out(kind: Kind, [host, internet, neighbour]: [N; 3]) -> Result<Self> {
        for netns in [&host, &internet, &neighbour] {
            prepare(netns.as_ref())?;
        }
        let here = host.as_ref();
        join(here, internet.as_ref()).context("join the host and the internet")?;
        make_tap(here, TAP, kind.header)?;
        match kind.link {
            Link::Routed => ip(here, "link set tap0 address 02:00:00:00:01:01\n")?,
            Link::Bridged => bridge(here, neighbour.as_ref(), kind.filters_bridge)?,
        }
        let device = device_of(kind.link);
        furnish(here, device).context("give the guest's network its addresses")?;
        nft(here, MASQUERADE)?;
        nft(here, QUIET)?;
        let members = GROUPS.map(|group| {
            let group = SocketAddr::new(group.parse()?, 5353);
            Listener::multicast(&host, group, device)
        });
        Ok(Self {
            kind,
            services: Listeners::everywhere(&host, PORT)?,
            servers: Listeners::everywhere(&internet, PORT)?,
            _members: members.into_iter().collect::<Result<_>>()?,
            _transparent: here.run(transparent)?,
            host,
            internet,
            neighbour,
        })
    }

    /// The device of the host that has the addresses of the guest's network.
    #[must_use]
    pub fn device(&self) -> &'static str {
        device_of(self.kind.link)
    }

    /// Opens the tap device, as a machine does.
    ///
    /// # Errors
    /// If another process has it open.
    pub fn open(&self) -> Result<Tap> {
        let header = self.kind.header;
        self.host.as_ref().run(|| Tap::open(TAP, header))
    }

    /// Opens the counters of everything that a frame may arrive at.
    ///
    /// # Errors
    /// If the kernel has no packet sockets.
    pub fn evidence(&self) -> Result<Evidence> {
        let neighbour = (self.kind.link == Link::Bridged).then_some(self.neighbour.as_ref());
        Evidence::new(self.host.as_ref(), TAP, self.internet.as_ref(), neighbour)
    }

    /// What has arrived at the listeners of the host.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.services.arrivals()
    }

    /// What has arrived at the servers on the internet.
    #[must_use]
    pub fn at_servers(&self) -> Vec<Arrival> {
        self.servers.arrivals()
    }

    /// Runs a script of nftables on the host.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn nft(&self, script: &str) -> Result<()> {
        nft(self.host.as_ref(), script)
    }
}

const fn device_of(link: Link) -> &'static str {
    match link {
        Link::Routed => TAP,
        Link::Bridged => "br0",
    }
}

/// Makes a persistent tap device that belongs to an unprivileged user, and sets it up.
///
/// # Errors
/// If there is no /dev/net/tun, or a device of this name exists.
pub fn make_tap(host: &Netns, name: &str, header: Header) -> Result<()> {
    let header = match header {
        Header::None => "",
        Header::Virtio => " vnet_hdr",
    };
    ip(
        host,
        &format!(
            "tuntap add dev {name} mode tap user {NOBODY} group {NOBODY}{header}\nlink set {name} up\n"
        ),
    )
}

/// Sets what a namespace has before its devices are made.
///
/// # Errors
/// If the kernel has no IPv6.
pub fn prepare(netns: &Netns) -> Result<()> {
    for (name, value) in [
        ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
        ("ipv6/conf/default/disable_ipv6", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/all/forwarding", "1"),
        // An answer that the guest ignores is not repeated.
        ("ipv4/tcp_synack_retries", "0"),
        // No limit on the errors of ICMP.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
    ] {
        set(netns, name, value)?;
    }
    // An older kernel has one limit for all namespaces, which is not changed.
    set_if_there(netns, "ipv4/icmp_msgs_per_sec", "100000")?;
    ip(netns, "link set lo up\n")
}

fn join(host: &Netns, internet: &Netns) -> Result<()> {
    let there = path(internet);
    ip(
        host,
        &format!(
            "link add wan address 02:00:00:00:02:02 type veth peer name inet address 02:00:00:00:02:01 netns {there}\n\
         link add nic2 address 02:00:00:00:03:01 type veth peer name lan netns {there}\n\
         link set wan up\nlink set nic2 up\n\
         address add 10.9.0.2/24 brd + dev wan\naddress add fd09::2/64 dev wan nodad\n\
         address add 10.50.0.1/24 brd + dev nic2\naddress add fd50::1/64 dev nic2 nodad\n"
        ),
    )?;
    ip(
        internet,
        "link set inet up\nlink set lan up\n\
         address add 10.9.0.1/24 brd + dev inet\naddress add fd09::1/64 dev inet nodad\n\
         address add 203.0.113.5/32 dev lo\naddress add 2001:db8:5::5/128 dev lo\n\
         neighbour replace 10.9.0.2 lladdr 02:00:00:00:02:02 dev inet nud permanent\n\
         neighbour replace fd09::2 lladdr 02:00:00:00:02:02 dev inet nud permanent\n",
    )?;
    ip(
        host,
        "route add default via 10.9.0.1\nroute add default via fd09::1\n\
         neighbour replace 10.9.0.1 lladdr 02:00:00:00:02:01 dev wan nud permanent\n\
         neighbour replace fd09::1 lladdr 02:00:00:00:02:01 dev wan nud permanent\n",
    )?;
    await_local(internet, &[SERVER_V4, SERVER_V6])?;
    await_local(host, &[UPLINK_V4, UPLINK_V6, OTHER_V4, OTHER_V6])
}

/// Whether netfilter can see the packets of bridges here. The module that makes it possible changes all bridges of the
/// machine, so nothing here loads it.
#[must_use]
pub fn has_filters() -> bool {
    Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
}

fn await_local(netns: &Netns, addresses: &[IpAddr]) -> Result<()> {
    let addresses: Vec<_> = addresses.iter().map(|address| (*address, 0)).collect();
    Wire::within(netns, async |wire| wire.await_local(&addresses).await)
}

/// Puts the tap device and the neighbour into a bridge.
fn bridge(host: &Netns, neighbour: &Netns, filters: bool) -> Result<()> {
    // Without the module br_netfilter there are no such parameters.
    if filters || has_filters() {
        for family in ["ip", "ip6", "arp"] {
            let name = format!("bridge/bridge-nf-call-{family}tables");
            set(host, &name, if filters { "1" } else { "0" })?;
        }
    }
    let there = path(neighbour);
    ip(
        host,
        &format!(
            "link add br0 address 02:00:00:00:01:01 type bridge forward_delay 0\n\
         link add port9 type veth peer name eth0 address 02:00:00:00:00:09 netns {there}\n\
         link set port9 master br0\nlink set tap0 master br0\n\
         link set port9 up\nlink set br0 up\n"
        ),
    )?;
    // Frames in its name do not move it to another port.
    let known = "fdb replace 02:00:00:00:00:09 dev port9 master static sticky";
    bridge_command(host, known)?;
    ip(
        neighbour,
        "link set eth0 up\naddress add 192.168.122.9/24 brd + dev eth0\n\
         address add fd00:122::9/64 dev eth0 nodad\naddress add fe80::9/64 dev eth0 nodad\n\
         route add default via 192.168.122.1\nroute add default via fd00:122::1\n\
         neighbour replace 192.168.122.1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent\n\
         neighbour replace fd00:122::1 lladdr 02:00:00:00:01:01 dev eth0 nud permanent\n\
         neighbour replace 192.168.122.10 lladdr 02:00:00:00:00:10 dev eth0 nud permanent\n\
         neighbour replace fd00:122::10 lladdr 02:00:00:00:00:10 dev eth0 nud permanent\n",
    )?;
    ip(
        host,
        "neighbour replace fd00:122::9 lladdr 02:00:00:00:00:09 dev br0 nud permanent\n\
         neighbour replace fe80::9 lladdr 02:00:00:00:00:09 dev br0 nud permanent\n",
    )?;
    await_local(neighbour, &[NEIGHBOUR_V4, NEIGHBOUR_V6])
}

/// The addresses of the guest's network, and the tunnel.
fn furnish(host: &Netns, device: &str) -> Result<()> {
    ip(
        host,
        &format!(
            "address add 192.168.122.1/24 brd + dev {device}\n\
         address add fd00:122::1/64 dev {device} nodad\n\
         address add fe80::1/64 dev {device} nodad\n\
         neighbour replace 192.168.122.10 lladdr 02:00:00:00:00:10 dev {device} nud permanent\n\
         neighbour replace fd00:122::10 lladdr 02:00:00:00:00:10 dev {device} nud permanent\n\
         neighbour replace fe80::10 lladdr 02:00:00:00:00:10 dev {device} nud permanent\n\
         neighbour replace 192.168.122.9 lladdr 02:00:00:00:00:09 dev {device} nud permanent\n\
         link add vx0 address 02:00:00:00:00:77 type vxlan id {TUNNEL} dstport 4789 local 192.168.122.1 \
             remote 192.168.122.10 dev {device}\n"
        ),
    )?;
    // It sends nothing by itself.
    set(host, "ipv6/conf/vx0/disable_ipv6", "1")?;
    ip(
        host,
        "link set vx0 up\naddress add 10.77.0.1/24 dev vx0\n\
         neighbour replace 10.77.0.2 lladdr 02:00:00:00:00:10 dev vx0 nud permanent\n",
    )?;
    await_local(host, &[GATEWAY_V4, GATEWAY_V6, GATEWAY_LOCAL, TUNNEL_V4])
}

/// A socket for datagrams to any address.
fn transparent() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket
        .set_ip_transparent_v4(true)
        .context("set IP_TRANSPARENT")?;
    let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), TRANSPARENT);
    socket.bind(&address.into()).context("bind")?;
    Ok(socket)
}
