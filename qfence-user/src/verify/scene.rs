//! The scene of `verify`: the private host and internet, and addresses that are the host's in unusual ways.
//!
//! ```text
//! host (this process), in addition to the drawing in `internet`
//! eth0 203.0.113.5/32 2001:db8:3::5/128
//! lo   198.18.7.0/24, local: AnyIP
//!      198.19.7.0/24, a route to the device
//!      198.19.8.0/24, 2001:db8:8::/64, by a rule to a table in which everything is local
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use netlink_packet_route::route::RouteType;

use super::{
    internet::{
        DEVICE, HOST_V4, HOST_V6, OTHER_V4, OTHER_V6, connect, has_v6, possible, set, v4, v6,
    },
    netns::Netns,
    wire::{Address, Wire},
};

/// Addresses that are the host's only by a route: in the table `local`, by a route to the loopback device in another
/// table, and by a rule.
const ANY_IP: Address = (v4(198, 18, 7, 0), 24);
const BY_DEVICE: Address = (v4(198, 19, 7, 0), 24);
const BY_RULE: [Address; 2] = [(v4(198, 19, 8, 0), 24), (v6(8, 0), 64)];
const EVERYTHING: [Address; 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
];

/// Numbers of routing tables (rtnetlink(7)); the last is a table of the scene.
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;
const TABLE_OWN: u32 = 100;

/// The two network namespaces. They end with the process.
#[derive(Debug)]
pub struct Scene {
    /// The protected host. This thread is in its namespace.
    pub host: Netns,
    /// The rest of the network.
    pub internet: Netns,
    /// Whether the kernel has IPv6.
    pub has_v6: bool,
}

impl Scene {
    /// Makes the two namespaces, and moves this thread, and all that it starts later, into that of the host.
    ///
    /// # Errors
    /// If the kernel cannot make a namespace or a device.
    pub fn enter() -> Result<Self> {
        let internet = Netns::new()?;
        let host = Netns::enter_new()?;
        let has_v6 = has_v6();
        let scene = Self {
            host,
            internet,
            has_v6,
        };
        connect(&scene.host, &scene.internet, has_v6)
            .and_then(|()| scene.add_unusual())
            .context("cannot lay out a private network")?;
        Ok(scene)
    }

    /// Adds the addresses that are the host's in unusual ways, and routes back to them.
    fn add_unusual(&self) -> Result<()> {
        // The host answers pings to its groups and broadcast addresses, so that a ping that reaches it is detected.
        set("ipv4/icmp_echo_ignore_broadcasts", "0")?;
        let hosts = possible(&[(HOST_V4, 0), (HOST_V6, 0)], self.has_v6);
        Wire::within(&self.internet, async |wire| {
            for (host, _) in hosts {
                wire.default_route(host).await?;
            }
            Ok(())
        })?;
        let others = possible(&[(OTHER_V4, 32), (OTHER_V6, 128)], self.has_v6);
        let everything = possible(&EVERYTHING, self.has_v6);
        let by_rule = possible(&BY_RULE, self.has_v6);
        Wire::within(&self.host, async |wire| {
            wire.assign(DEVICE, &others).await?;
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
            wire.await_local(&others).await
        })
    }
}
