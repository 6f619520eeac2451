//! A private host and a private internet, joined by a wire. No packet leaves them. `verify` and the tests use them.
//!
//! ```text
//! host                                          internet
//! eth0 192.0.2.10/24  2001:db8:1::10/64  ────  eth0 192.0.2.1/24  2001:db8:1::1/64
//!      fe80::10/64                              lo   198.51.100.7  2001:db8:2::7
//! lo   127.0.0.1/8    ::1
//! ```

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    netns::Netns,
    wire::{Address, Wire},
};

pub(super) const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

pub(super) const fn v6(subnet: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host))
}

/// The host's address on its LAN.
pub const HOST_V4: IpAddr = v4(192, 0, 2, 10);
/// The host's address on its LAN.
pub const HOST_V6: IpAddr = v6(1, 0x10);
/// The host's link-local address.
pub const HOST_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x10));
/// The broadcast address of the host's LAN.
pub const BROADCAST: IpAddr = v4(192, 0, 2, 255);
/// Another address of the host, which scenes give to a device of their choice.
pub const OTHER_V4: IpAddr = v4(203, 0, 113, 5);
/// Another address of the host, which scenes give to a device of their choice.
pub const OTHER_V6: IpAddr = v6(3, 5);
/// The host's gateway, at the other end of the wire.
pub const GATEWAY_V4: IpAddr = v4(192, 0, 2, 1);
/// The host's gateway, at the other end of the wire.
pub const GATEWAY_V6: IpAddr = v6(1, 1);
/// A server on the internet, behind the gateway.
pub const SERVER_V4: IpAddr = v4(198, 51, 100, 7);
/// A server on the internet, behind the gateway.
pub const SERVER_V6: IpAddr = v6(2, 7);
/// The host's nameserver, on an address of its own on loopback.
pub const NAMESERVER: IpAddr = v4(127, 0, 0, 53);

/// The device at either end of the wire.
pub const DEVICE: &str = "eth0";

/// The directory of the network parameters of the kernel.
const SYSCTLS: &str = "/proc/sys/net";

/// Whether the kernel supports IPv6.
#[must_use]
pub fn has_v6() -> bool {
    Path::new(SYSCTLS).join("ipv6").exists()
}

/// Removes the IPv6 addresses from `addresses` unless `has_v6`.
pub(super) fn possible(addresses: &[Address], has_v6: bool) -> Vec<Address> {
    let possible = |(address, _): &&Address| has_v6 || address.is_ipv4();
    addresses.iter().filter(possible).copied().collect()
}

/// Connects two new network namespaces: devices, addresses, the host's default routes. Leaves out IPv6 unless `has_v6`.
///
/// # Errors
/// If the kernel refuses a device, an address, a route or a parameter.
pub fn connect(host: &Netns, internet: &Netns, has_v6: bool) -> Result<()> {
    for netns in [host, internet] {
        netns.run(|| set_parameters(has_v6))?;
    }
    Wire::within(host, async |wire| {
        wire.join(DEVICE, internet).await?;
        wire.up("lo").await?;
        wire.up(DEVICE).await
    })?;
    let there = possible(&[(GATEWAY_V4, 24), (GATEWAY_V6, 64)], has_v6);
    let servers = possible(&[(SERVER_V4, 32), (SERVER_V6, 128)], has_v6);
    Wire::within(internet, async |wire| {
        wire.up("lo").await?;
        wire.up(DEVICE).await?;
        wire.assign(DEVICE, &there).await?;
        wire.assign("lo", &servers).await?;
        wire.await_local(&there).await?;
        wire.await_local(&servers).await
    })?;
    let here = [(HOST_V4, 24), (HOST_V6, 64), (HOST_LINK_LOCAL, 64)];
    let here = possible(&here, has_v6);
    Wire::within(host, async |wire| {
        wire.assign(DEVICE, &here).await?;
        for (gateway, _) in there {
            wire.default_route(gateway).await?;
        }
        wire.await_local(&here).await
    })
}

fn set_parameters(has_v6: bool) -> Result<()> {
    // All users may send pings, as on most distributions.
    set("ipv4/ping_group_range", "0 2147483647")?;
    if has_v6 {
        // Addresses are usable at once, without duplicate address detection. The parameters apply to devices that are
        // made later.
        for devices in ["all", "default"] {
            set(&format!("ipv6/conf/{devices}/accept_dad"), "0")?;
            set(&format!("ipv6/conf/{devices}/disable_ipv6"), "0")?;
        }
    }
    Ok(())
}

/// Sets a parameter of the network namespace of this thread, such as `ipv4/ip_forward`.
///
/// # Errors
/// If the kernel has no such parameter or refuses the value.
pub fn set(parameter: &str, value: &str) -> Result<()> {
    let path = Path::new(SYSCTLS).join(parameter);
    fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
}
