//! The addresses to which no name may lead: those of this host and of networks that are not the internet.

use std::net::{IpAddr, Ipv6Addr};

use crate::policy::{Prefix, Sets, hostset::single, set::SetName};

/// The sets whose members no name opens, in the order in which they are named as a reason.
const GUARDED: [SetName; 6] = [
    SetName::Loopback,
    SetName::Host,
    SetName::Multicast,
    SetName::Metadata,
    SetName::LinkLocal,
    SetName::Lan,
];

/// The addresses to which no name may lead, as they are now.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard(Vec<(SetName, Vec<Prefix>)>);

impl Guard {
    /// Those of the sets. With `allows_private`, names may lead to private networks.
    pub(super) fn new(sets: &Sets, allows_private: bool) -> Self {
        let guarded = GUARDED.into_iter();
        let guarded = guarded.filter(|set| !(allows_private && *set == SetName::Lan));
        let members = guarded.map(|set| {
            let members = sets.members(set).unwrap_or_default();
            (set, members.into_iter().collect())
        });
        Self(members.collect())
    }

    /// The set by which an address is guarded, in whatever spelling.
    pub(super) fn reason(&self, address: IpAddr) -> Option<&'static str> {
        let spelled = std::iter::once(address).chain(other_spelling(address));
        let spelled: Vec<Prefix> = spelled.map(single).collect();
        let has = |(_, members): &&(SetName, Vec<Prefix>)| {
            let mut all = members.iter();
            all.any(|member| spelled.iter().any(|address| member.contains(address)))
        };
        self.0.iter().find(has).map(|(set, _)| set.name())
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
    use crate::policy::hostset::{host_set, many_set};

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
    fn private_networks_can_be_meant_but_not_the_host() {
        let guard = guard(true);
        let reason = |address: &str| guard.reason(address.parse().unwrap());
        assert_eq!(reason("10.0.0.1"), None);
        assert_eq!(reason("fd00::1"), None);
        assert_eq!(reason("192.0.2.10"), Some("host"));
        assert_eq!(reason("169.254.169.254"), Some("metadata"));
    }
}
