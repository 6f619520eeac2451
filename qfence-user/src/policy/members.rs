//! The members of the sets that are the same on every host.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv6Net;

use super::{Prefix, hostset::prefix, set::SetName};

/// An address, and a length of its own family.
type Net = (IpAddr, u8);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Net {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length)
}

const fn v6(groups: [u16; 8], length: u8) -> Net {
    let [a, b, c, d, e, f, g, h] = groups;
    (IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), length)
}

/// Addresses that lead to the machine itself.
const LOOPBACK: [Net; 4] = [
    // RFC 1122, 3.2.1.3 (g).
    v4(127, 0, 0, 0, 8),
    // "This host" (RFC 1122, 3.2.1.3 (a)). Linux connects 0.0.0.0 to loopback.
    v4(0, 0, 0, 0, 8),
    // RFC 4291, 2.5.3.
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    // The unspecified address (RFC 4291, 2.5.2). Linux connects it to loopback, too.
    v6([0; 8], 128),
];

/// Private networks.
const LAN: [Net; 6] = [
    // RFC 1918.
    v4(10, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    // Shared between a provider and its customers (RFC 6598). Some overlay networks use it as well.
    v4(100, 64, 0, 0, 10),
    // Unique local addresses (RFC 4193).
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    // Site-local addresses: deprecated by RFC 3879, but Linux routes them like any others.
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// Networks of one link.
const LINK_LOCAL: [Net; 2] = [
    // RFC 3927.
    v4(169, 254, 0, 0, 16),
    // RFC 4291, 2.5.6.
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// Metadata services of clouds, from the clouds' documentation. An address is listed even if `link-local` or `lan`
/// contains it, because a rule may name only this set.
const METADATA: [Net; 17] = [
    // AWS, Azure, Google, Oracle, OpenStack, IBM, DigitalOcean, Hetzner, Vultr, Akamai and more.
    v4(169, 254, 169, 254, 32),
    // AWS EC2, IPv6.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    // AWS ECS: the credentials of a task.
    v4(169, 254, 170, 2, 32),
    // AWS EKS Pod Identity: the credentials of a pod.
    v4(169, 254, 170, 23, 32),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128),
    // Google Compute Engine, IPv6.
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    // Azure's wire server, which serves certificates and extension settings. It is also Azure's nameserver: a rule
    // that allows `dns` must precede one that denies this.
    v4(168, 63, 129, 16, 32),
    // Alibaba Cloud.
    v4(100, 100, 100, 200, 32),
    v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128),
    // Oracle Cloud Infrastructure, IPv6; and Oracle Cloud Classic.
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
    v4(192, 0, 0, 192, 32),
    // Scaleway.
    v4(169, 254, 42, 42, 32),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
    // Akamai (Linode), IPv6.
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128),
    // OpenStack, IPv6 (Nova's administration guide, since Victoria).
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128),
    // Tencent Cloud.
    v4(169, 254, 0, 23, 32),
    // Volcano Engine.
    v4(100, 96, 0, 96, 32),
];

/// Destinations with many receivers.
const MULTICAST: [Net; 3] = [
    // RFC 5771.
    v4(224, 0, 0, 0, 4),
    // RFC 4291, 2.7.
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    // Limited broadcast (RFC 919).
    v4(255, 255, 255, 255, 32),
];

/// The members of a set on every host. `None` for `host`, `dns`, `gateway` and `internet`, which depend on the host.
///
/// `lan`, `link-local` and `metadata` also have the NAT64 spellings of their IPv4 members
/// ([`Sets::members`](super::Sets::members)).
#[must_use]
pub fn members(name: SetName) -> Option<BTreeSet<Prefix>> {
    match name {
        SetName::Host | SetName::Fence | SetName::Dns | SetName::Gateway | SetName::Internet => {
            None
        }
        SetName::Any => Some(BTreeSet::from([Ipv6Net::default()])),
        SetName::Loopback => Some(plain(&LOOPBACK).collect()),
        SetName::Multicast => Some(plain(&MULTICAST).collect()),
        SetName::Lan => Some(plain(&LAN).collect()),
        SetName::LinkLocal => Some(plain(&LINK_LOCAL).collect()),
        SetName::Metadata => Some(plain(&METADATA).collect()),
    }
}

fn plain(nets: &[Net]) -> impl Iterator<Item = Prefix> + '_ {
    nets.iter()
        .filter_map(|&(address, length)| prefix(address, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hostset::single;

    fn contains(name: SetName, address: &str) -> bool {
        let single = single(address.parse().unwrap());
        members(name)
            .unwrap()
            .iter()
            .any(|prefix| prefix.contains(&single))
    }

    #[test]
    fn what_depends_on_the_host_has_no_members_here() {
        let dynamic: Vec<_> = SetName::ALL
            .into_iter()
            .filter(|&set| members(set).is_none())
            .collect();
        let expected = [
            SetName::Host,
            SetName::Fence,
            SetName::Dns,
            SetName::Gateway,
            SetName::Internet,
        ];
        assert_eq!(dynamic, expected);
    }

    #[test]
    fn every_constant_is_a_prefix_with_nothing_beyond_its_length() {
        for nets in [&LOOPBACK[..], &LAN, &LINK_LOCAL, &METADATA, &MULTICAST] {
            for &(address, length) in nets {
                let prefix = prefix(address, length).unwrap();
                assert_eq!(prefix.addr(), single(address).addr(), "{address}/{length}");
            }
            assert_eq!(plain(nets).collect::<BTreeSet<_>>().len(), nets.len());
        }
    }

    #[test]
    fn both_families_are_in_every_set() {
        for (set, inside) in [
            (
                SetName::Loopback,
                &[
                    "127.0.0.1",
                    "127.9.9.9",
                    "0.0.0.0",
                    "::1",
                    "::",
                    "::ffff:127.0.0.1",
                ][..],
            ),
            (
                SetName::Lan,
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "100.127.255.255",
                    "fc00::1",
                    "fdff::1",
                    "fec0::1",
                    "::ffff:10.0.0.1",
                ],
            ),
            (
                SetName::LinkLocal,
                &["169.254.1.1", "fe80::1", "febf::1", "::ffff:169.254.1.1"],
            ),
            (
                SetName::Metadata,
                &["169.254.169.254", "fd00:ec2::254", "fe80::a9fe:a9fe"],
            ),
            (
                SetName::Multicast,
                &["224.0.0.251", "239.1.1.1", "255.255.255.255", "ff02::1"],
            ),
            (SetName::Any, &["1.1.1.1", "2001:db8::1", "::"]),
        ] {
            for address in inside {
                assert!(contains(set, address), "{address} is not in {set}");
            }
        }
    }

    #[test]
    fn what_is_beside_a_set_is_not_in_it() {
        for (set, outside) in [
            (SetName::Loopback, &["128.0.0.1", "1.0.0.0", "::2"][..]),
            (
                SetName::Lan,
                &[
                    "9.255.255.255",
                    "11.0.0.0",
                    "172.15.0.1",
                    "172.32.0.0",
                    "192.169.0.0",
                    "100.63.255.255",
                    "100.128.0.0",
                    "fe00::1",
                    "fbff::1",
                    "ff00::1",
                ],
            ),
            (
                SetName::LinkLocal,
                &["169.253.0.0", "169.255.0.0", "fec0::1"],
            ),
            (
                SetName::Metadata,
                &["169.254.169.253", "168.63.129.17", "fd00:ec2::253"],
            ),
            (
                SetName::Multicast,
                &["223.255.255.255", "240.0.0.1", "255.255.255.254", "fe00::1"],
            ),
        ] {
            for address in outside {
                assert!(!contains(set, address), "{address} is in {set}");
            }
        }
    }
}
