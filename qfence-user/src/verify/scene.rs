//! A host and an internet of verify's own, joined by a wire. No packet leaves them.
//!
//! ```text
//! host (this process)                           internet
//! eth0 192.0.2.10/24  2001:db8:1::10/64  ────  eth0 192.0.2.1/24  2001:db8:1::1/64
//!      203.0.113.5/32 2001:db8:3::5/128         lo   198.51.100.7  2001:db8:2::7
//!      fe80::10/64
//! lo   127.0.0.1/8    ::1
//!      198.18.7.0/24, local: AnyIP
//!      198.19.7.0/24, a route by the device
//!      198.19.8.0/24, 2001:db8:8::/64, by a rule: everything is local
//! ```

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use netlink_packet_route::route::RouteType;

use super::{
    netns::Netns,
    wire::{Address, Wire},
};

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(subnet: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host))
}

/// The host's address on its LAN.
pub const HOST_V4: IpAddr = v4(192, 0, 2, 10);
/// The host's address on its LAN.
pub const HOST_V6: IpAddr = v6(1, 0x10);
/// Another address of the host's.
pub const OTHER_V4: IpAddr = v4(203, 0, 113, 5);
/// Another address of the host's.
pub const OTHER_V6: IpAddr = v6(3, 5);
/// The broadcast address of the host's LAN.
pub const BROADCAST: IpAddr = v4(192, 0, 2, 255);
/// A server on the internet.
pub const SERVER_V4: IpAddr = v4(198, 51, 100, 7);
/// A server on the internet.
pub const SERVER_V6: IpAddr = v6(2, 7);
/// The host's nameserver, on an address of its own on loopback.
pub const NAMESERVER: IpAddr = v4(127, 0, 0, 53);

/// The host's link-local address.
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10));

/// Addresses that are the host's by a route alone: as the table `local` says, past it by the device,
/// and past it by a rule.
const ANY_IP: Address = (v4(198, 18, 7, 0), 24);
const BY_DEVICE: Address = (v4(198, 19, 7, 0), 24);
const BY_RULE: [Address; 2] = [(v4(198, 19, 8, 0), 24), (v6(8, 0), 64)];
const EVERYTHING: [Address; 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
];

/// Routing tables (rtnetlink(7)), and one of our own.
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;
const TABLE_OWN: u32 = 100;

const GATEWAY_V4: IpAddr = v4(192, 0, 2, 1);
const GATEWAY_V6: IpAddr = v6(1, 1);

/// The device at either end of the wire.
pub const DEVICE: &str = "eth0";

/// Where the kernel has its parameters.
const SYSCTLS: &str = "/proc/sys/net";

/// The two namespaces. They end with the process.
#[derive(Debug)]
pub struct Scene {
    /// The host that is to be protected. This thread is in it.
    pub host: Netns,
    /// All else.
    pub internet: Netns,
    /// Whether the kernel has IPv6.
    pub has_v6: bool,
}

impl Scene {
    /// Makes the two, and moves this thread, with all that it starts from here on, to the host.
    ///
    /// # Errors
    /// If the kernel does not make namespaces or devices.
    pub fn enter() -> Result<Self> {
        let internet = Netns::new()?;
        let host = Netns::enter_new()?;
        let has_v6 = Path::new(SYSCTLS).join("ipv6").exists();
        let scene = Self {
            host,
            internet,
            has_v6,
        };
        scene
            .lay_out()
            .context("cannot lay out a private network")?;
        Ok(scene)
    }

    fn lay_out(&self) -> Result<()> {
        // Everybody may send pings, as on most distributions.
        set("ipv4/ping_group_range", "0 2147483647")?;
        if self.has_v6 {
            // For its first second a device could otherwise not ask for its neighbours. Both must say
            // so, before there is a device.
            for netns in [&self.host, &self.internet] {
                netns.run(|| {
                    set("ipv6/conf/all/accept_dad", "0")?;
                    set("ipv6/conf/default/accept_dad", "0")
                })?;
            }
        }

        Wire::within(&self.host, async |wire| {
            wire.join(DEVICE, &self.internet).await?;
            wire.up("lo").await?;
            wire.up(DEVICE).await
        })?;
        let there = self.possible(&[(GATEWAY_V4, 24), (GATEWAY_V6, 64)]);
        let hosts = self.possible(&[(HOST_V4, 0), (HOST_V6, 0)]);
        let servers = self.possible(&[(SERVER_V4, 32), (SERVER_V6, 128)]);
        Wire::within(&self.internet, async |wire| {
            wire.up("lo").await?;
            wire.up(DEVICE).await?;
            wire.assign(DEVICE, &there).await?;
            wire.assign("lo", &servers).await?;
            for (host, _) in hosts {
                wire.default_route(host).await?;
            }
            wire.await_local(&there).await?;
            wire.await_local(&servers).await
        })?;
        let here = self.possible(&[
            (HOST_V4, 24),
            (OTHER_V4, 32),
            (HOST_V6, 64),
            (OTHER_V6, 128),
            (LINK_LOCAL, 64),
        ]);
        let (everything, by_rule) = (self.possible(&EVERYTHING), self.possible(&BY_RULE));
        let gateways = self.possible(&[(GATEWAY_V4, 0), (GATEWAY_V6, 0)]);
        Wire::within(&self.host, async |wire| {
            wire.assign(DEVICE, &here).await?;
            for (gateway, _) in gateways {
                wire.default_route(gateway).await?;
            }
            wire.route_by("lo", ANY_IP, RouteType::Local, TABLE_LOCAL)
                .await?;
            wire.route_by("lo", BY_DEVICE, RouteType::Unicast, TABLE_MAIN)
                .await?;
            for prefix in everything {
                wire.route_by("lo", prefix, RouteType::Local, TABLE_OWN)
                    .await?;
            }
            for prefix in by_rule {
                wire.look_up_in(prefix, TABLE_OWN).await?;
            }
            wire.await_local(&here).await
        })
    }

    fn possible(&self, addresses: &[Address]) -> Vec<Address> {
        let possible = |(address, _): &&Address| self.has_v6 || address.is_ipv4();
        addresses.iter().filter(possible).copied().collect()
    }
}

/// Sets a parameter of the network namespace of this thread.
fn set(parameter: &str, value: &str) -> Result<()> {
    let path = Path::new(SYSCTLS).join(parameter);
    fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
}
