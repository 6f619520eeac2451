//! The addresses to which no name may lead: those of this host and of networks that are not the internet.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Prefix, Sets, set::SetName};

/// The sets whose members no name opens, in the order in which they are named as a reason.
const GUARDED: [SetName; 6] = [
    SetName::Loopback,
    SetName::Host,
    SetName::Multicast,
    SetName::Metadata,
    SetName::LinkLocal,
    SetName::Lan,
];

/// An address that was taken out of an answer, because no name may lead there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Struck {
    /// The address.
    pub address: IpAddr,
    /// The set that it belongs to: `host`, `lan`, and so on.
    pub set: Arc<str>,
}

/// The addresses to which no name may lead, as they are now: the intervals of each set, in order and apart. A host can have
/// thousands of addresses, and all addresses of an answer are looked up.
#[derive(Clone, Debug, Default)]
pub struct Guard(Vec<(SetName, Vec<(u128, u128)>)>);

impl Guard {
    /// Those of the sets. With `allows_private`, names may lead to private networks.
    #[must_use]
    pub fn new(sets: &Sets, allows_private: bool) -> Self {
        let guarded = GUARDED.into_iter();
        let guarded = guarded.filter(|set| !(allows_private && *set == SetName::Lan));
        let members = guarded.map(|set| (set, intervals(sets.members(set).unwrap_or_default())));
        Self(members.collect())
    }

    /// The set by which an address is guarded, in whatever spelling.
    #[must_use]
    pub fn reason(&self, address: IpAddr) -> Option<&'static str> {
        let other = other_spelling(address).map(number);
        let spelled = [Some(number(address)), other];
        let has = |(_, intervals): &&(SetName, Vec<(u128, u128)>)| {
            let mut spelled = spelled.into_iter().flatten();
            spelled.any(|address| contains(intervals, address))
        };
        self.0.iter().find(has).map(|(set, _)| set.name())
    }
}

/// The intervals of prefixes, without those within others.
fn intervals(prefixes: BTreeSet<Prefix>) -> Vec<(u128, u128)> {
    let mut intervals: Vec<(u128, u128)> = Vec::new();
    // In order, a prefix comes before all that are within it.
    for prefix in prefixes {
        let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
        if intervals.last().is_none_or(|(_, end)| *end < first) {
            intervals.push((first, last));
        }
    }
    intervals
}

fn contains(intervals: &[(u128, u128)], address: u128) -> bool {
    let before = intervals.partition_point(|(first, _)| *first <= address);
    let last = before.checked_sub(1).and_then(|at| intervals.get(at));
    last.is_some_and(|(_, last)| address <= *last)
}

/// An address as a number. IPv4 is v4-mapped, as in prefixes.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The IPv4 address to which a host with a 6to4 or an automatic tunnel would send a packet for an IPv6 address: 2002::/16 (RFC
/// 3056), and ::/96 (RFC 4291, 2.5.5.1). The spellings of NAT64 are members of the sets.
fn other_spelling(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    let [a, b, c, ..] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low);
        mapped.to_canonical()
    };
    match v6.segments() {
        _ if a == 0x2002 => Some(v4(b, c)),
        [0, 0, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hostset::{host_set, many_set, single};

    fn guard(allows_private: bool) -> Guard {
        let own = ["192.0.2.10", "2001:db8::10"].map(|text| single(text.parse().unwrap()));
        let sets = Sets {
            host: host_set(own),
            many: many_set([]),
            ..Sets::default()
        };
        Guard::new(&sets, allows_private)
    }

    fn reason(address: &str) -> Option<&'static str> {
        guard(false).reason(address.parse().unwrap())
    }

    #[test]
    fn no_spelling_of_the_host_is_free() {
        for (address, set) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("0.0.0.0", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("64:ff9b::127.0.0.1", "host"),
            ("192.0.2.10", "host"),
            ("64:ff9b::192.0.2.10", "host"),
            ("2002:c000:20a::1", "host"),
            ("2001:db8::10", "host"),
            ("10.0.0.1", "lan"),
            ("64:ff9b::10.0.0.1", "lan"),
            ("2002:a00:1::", "lan"),
            ("fd00::1", "lan"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("169.254.169.254", "metadata"),
            ("255.255.255.255", "host"),
            ("ff02::1", "host"),
        ] {
            assert_eq!(reason(address), Some(set), "{address}");
        }
        for address in ["192.0.2.11", "1.1.1.1", "2001:db8::11", "2002:c000:20b::1"] {
            assert_eq!(reason(address), None, "{address}");
        }
    }

    #[test]
    fn intervals_have_the_addresses_of_their_prefixes_and_no_others() {
        let prefixes = [
            "2001:db8::/126",
            "2001:db8::/127",
            "2001:db8::2/128",
            "2001:db8::8/128",
            "2001:db8::a/127",
            "ffff::/16",
        ];
        let prefixes: BTreeSet<Prefix> = prefixes.map(|text| text.parse().unwrap()).into();
        let found = intervals(prefixes.clone());
        assert_eq!(found.len(), 4);
        let last = u128::MAX;
        let near = (0..16).map(|low| 0x2001_0db8 << 96 | low);
        for address in near.chain([0, last - 1, last, 0xffff << 112, (0xffff << 112) - 1]) {
            let address = Ipv6Addr::from_bits(address);
            let is_in = prefixes.iter().any(|prefix| prefix.contains(&address));
            assert_eq!(contains(&found, address.to_bits()), is_in, "{address}");
        }
    }

    #[test]
    fn private_networks_can_be_meant_but_not_the_host() {
        let guard = guard(true);
        let reason = |address: &str| guard.reason(address.parse().unwrap());
        assert_eq!(reason("10.0.0.1"), None);
        assert_eq!(reason("fd00::1"), None);
        assert_eq!(reason("192.0.2.10"), Some("host"));
        assert_eq!(reason("169.254.169.254"), Some("metadata"));
    }
}
