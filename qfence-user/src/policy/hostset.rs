//! The members of the set `host`: fixed ones, and the local routes of the kernel.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv6Net;
use qfence_common::address::V4_PREFIX_BITS;
use serde::{Deserialize, Serialize};

use crate::policy::{Prefix, rule::without_v4};

/// Destinations that are the host, or loop back to it, on every host.
const ALWAYS: [(IpAddr, u8); 4] = [
    // "This host" (RFC 1122): Linux connects 0.0.0.0 to loopback, and refuses the rest of 0/8.
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
];

/// Multicast and limited broadcast. They reach listeners on the host as well as the network.
const MANY: [(IpAddr, u8); 3] = [
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// The prefix of an address and a length of its own family; `None` if the length is too long.
#[must_use]
pub fn prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    let (address, length) = match address {
        IpAddr::V4(v4) if length <= 32 => (v4.to_ipv6_mapped(), V4_PREFIX_BITS + length),
        IpAddr::V4(_) => return None,
        IpAddr::V6(v6) => (v6, length),
    };
    Ipv6Net::new(address, length).ok().map(|net| net.trunc())
}

/// The prefix that contains only one address.
#[must_use]
pub fn single(address: IpAddr) -> Prefix {
    let key = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Ipv6Net::from(key)
}

/// The address to which the kernel connects. For the unspecified address that is loopback
/// (`ip_route_output_key_hash_rcu` in net/ipv4/route.c, `ip6_dst_lookup_tail`'s callers in net/ipv6/tcp_ipv6.c and
/// datagram.c). The hooks of calls judge the address that was given, and those of packets this one.
#[must_use]
pub fn as_connected(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// The set `host`. `local_routes` are the destinations of the kernel's routes of type local, broadcast and anycast.
#[must_use]
pub fn host_set(local_routes: impl IntoIterator<Item = Prefix>) -> BTreeSet<Prefix> {
    let always = ALWAYS
        .into_iter()
        .chain(MANY)
        .filter_map(|(address, length)| prefix(address, length));
    // A route for all of IPv6 does not cover IPv4.
    always
        .chain(local_routes.into_iter().flat_map(without_v4))
        .collect()
}

/// Destinations with many receivers. `broadcasts` are the destinations of routes of type broadcast.
#[must_use]
pub fn many_set(broadcasts: impl IntoIterator<Item = Prefix>) -> BTreeSet<Prefix> {
    let always = MANY
        .into_iter()
        .filter_map(|(address, length)| prefix(address, length));
    always
        .chain(broadcasts.into_iter().flat_map(without_v4))
        .collect()
}

/// The addresses of the network namespaces of a workload, which are not this host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadAddresses {
    /// The destinations of their routes of type local, broadcast and anycast.
    pub host: BTreeSet<Prefix>,
    /// Those of routes of type broadcast.
    pub many: BTreeSet<Prefix>,
}

impl WorkloadAddresses {
    /// The addresses of services in these namespaces: the workload's own, and those that always lead to the machine itself.
    /// `host` has the addresses of this host, which are none of them.
    #[must_use]
    pub fn pod(&self, host: &BTreeSet<Prefix>) -> BTreeSet<Prefix> {
        let own = self.host.difference(&self.many);
        let is_of_host = |prefix: &&Prefix| {
            host.iter()
                .any(|of| of.contains(*prefix) || prefix.contains(of))
        };
        let own = own.filter(|prefix| !is_of_host(prefix)).copied();
        let always = ALWAYS.into_iter();
        own.chain(always.filter_map(|(address, length)| prefix(address, length)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(set: &BTreeSet<Prefix>, address: &str) -> bool {
        let single = single(address.parse().unwrap());
        set.iter().any(|prefix| prefix.contains(&single))
    }

    #[test]
    fn every_constant_is_a_prefix() {
        assert_eq!(host_set([]).len(), ALWAYS.len() + MANY.len());
        assert_eq!(many_set([]).len(), MANY.len());
    }

    #[test]
    fn loopback_broadcast_and_multicast_are_always_the_host() {
        let set = host_set([]);
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.9.9",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.251",
        ] {
            assert!(contains(&set, address), "{address} is not in the set");
        }
    }

    #[test]
    fn the_internet_is_not_the_host() {
        let set = host_set([]);
        for address in [
            "1.1.1.1",
            "128.0.0.1",
            "223.255.255.255",
            "240.0.0.1",
            "2001:db8::1",
        ] {
            assert!(!contains(&set, address), "{address} is in the set");
        }
    }

    #[test]
    fn a_local_route_adds_its_prefix_in_both_spellings() {
        let any_ip = prefix("198.51.100.0".parse().unwrap(), 24).unwrap();
        let set = host_set([any_ip]);
        assert!(contains(&set, "198.51.100.77"));
        assert!(contains(&set, "::ffff:198.51.100.77"));
        assert!(!contains(&set, "198.51.101.1"));
    }

    #[test]
    fn a_local_route_for_all_of_one_family_is_none_for_the_other() {
        let all = |address: &str| host_set(prefix(address.parse().unwrap(), 0));
        for (here, there) in [("1.1.1.1", "2001:db8::1"), ("2001:db8::1", "1.1.1.1")] {
            let unspecified = if here.contains(':') { "::" } else { "0.0.0.0" };
            let set = all(unspecified);
            assert!(contains(&set, here) && !contains(&set, there), "{here}");
        }
    }

    #[test]
    fn a_length_that_the_family_does_not_have_is_no_prefix() {
        assert_eq!(prefix("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(prefix("::".parse().unwrap(), 129), None);
    }

    #[test]
    fn a_pod_has_its_own_addresses_and_none_of_the_hosts() {
        let net = |text: &str, length| prefix(text.parse().unwrap(), length).unwrap();
        let broadcast = net("10.77.0.255", 32);
        let workload = WorkloadAddresses {
            host: BTreeSet::from([
                net("10.77.0.2", 32),
                broadcast,
                net("192.0.2.10", 32),
                // It would contain the host.
                net("192.0.0.0", 16),
                net("127.0.0.0", 8),
            ]),
            many: BTreeSet::from([broadcast]),
        };
        let host = host_set([single("192.0.2.10".parse().unwrap())]);
        let pod = workload.pod(&host);
        for (address, is_in) in [
            ("10.77.0.2", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("10.77.0.255", false),
            ("192.0.2.10", false),
            ("192.0.2.11", false),
            ("10.77.0.1", false),
        ] {
            assert_eq!(contains(&pod, address), is_in, "{address}");
        }
    }
}
