//! IPv4 addresses inside IPv6 addresses: NAT64. A translator sends a packet for such an address to the IPv4 address in
//! it (RFC 6052).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{Ipv4Net, Ipv6Net};
use qfence_common::address::V4_PREFIX_BITS;

use super::{Prefix, rule::V4};

/// The lengths that the prefix of a translator can have (RFC 6052, 2.2).
pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The well-known prefix (RFC 6052, 2.1).
pub const WELL_KNOWN: Prefix =
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// The IPv4 addresses of the name `ipv4only.arpa` (RFC 7050, 8.2). A resolver for NAT64 returns them translated.
pub const IPV4_ONLY: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The most prefixes of translators that are used.
pub const MOST: usize = 8;

/// The first bit of the octet that RFC 6052 calls u. It lies within the IPv4 address, and is zero.
const U: u8 = 64;
/// The first bit behind this octet.
const AFTER_U: u8 = U + 8;

/// Whether a translator can have this prefix.
#[must_use]
pub fn is_possible(prefix: Prefix) -> bool {
    LENGTHS.contains(&prefix.prefix_len())
}

/// The spellings of the IPv4 prefixes among `members`, under the well-known prefix and those in `translators`.
///
/// An IPv4 address that surrounds the octet u is also covered with another octet than zero: some translators ignore it.
#[must_use]
pub fn spellings(
    members: impl IntoIterator<Item = Prefix>,
    translators: &BTreeSet<Prefix>,
) -> BTreeSet<Prefix> {
    let v4: Vec<Ipv4Net> = members.into_iter().filter_map(as_v4).collect();
    // Neighbours are joined: a host can have thousands of addresses.
    let v4 = Ipv4Net::aggregate(&v4);
    let mut found = BTreeSet::new();
    for translator in [&WELL_KNOWN].into_iter().chain(translators) {
        for net in &v4 {
            found.extend(spelling(*translator, net.addr(), net.prefix_len()));
            found.extend(misspellings(*translator, *net));
        }
    }
    found
}

/// The IPv4 prefix of a v4-mapped one.
fn as_v4(prefix: Prefix) -> Option<Ipv4Net> {
    if !V4.contains(&prefix) {
        return None;
    }
    let address = prefix.addr().to_ipv4_mapped()?;
    Ipv4Net::new(address, prefix.prefix_len() - V4_PREFIX_BITS).ok()
}

/// An IPv4 address, spelled under a translator's prefix; `None` if no translator can have the prefix.
#[must_use]
pub fn spell(translator: Prefix, address: Ipv4Addr) -> Option<Ipv6Addr> {
    let possible = is_possible(translator).then_some(translator)?;
    spelling(possible, address, 32).map(|spelled| spelled.addr())
}

/// The addresses below a translator's prefix that contain an IPv4 prefix.
fn spelling(translator: Prefix, address: Ipv4Addr, length: u8) -> Option<Prefix> {
    let begin = translator.prefix_len();
    let v4 = u128::from(address.to_bits());
    let (bits, end) = if begin == 96 {
        (v4, begin + length)
    } else {
        // The bits before the octet u, and those behind it.
        let before = U - begin;
        let at = |bits: u128, end: u8| bits << (128 - u32::from(end));
        let upper = v4 >> (32 - before.min(32));
        let upper = at(upper, begin + before.min(32));
        let lower = match 32_u8.checked_sub(before) {
            Some(rest) if rest > 0 => at(v4 & ((1 << rest) - 1), AFTER_U + rest),
            _ => 0,
        };
        let has_lower = length > before;
        let u = if has_lower { AFTER_U - U } else { 0 };
        (upper | lower, begin + length + u)
    };
    let address = Ipv6Addr::from_bits(translator.network().to_bits() | bits);
    Ipv6Net::new(address, end).ok().map(|net| net.trunc())
}

/// The addresses whose octet u is not zero, and whose bits before it are those of an IPv4 prefix that extends beyond
/// it. By RFC 6052 they are no addresses of the translator.
fn misspellings(translator: Prefix, net: Ipv4Net) -> Vec<Prefix> {
    let before = U.saturating_sub(translator.prefix_len());
    if translator.prefix_len() == 96 || net.prefix_len() <= before {
        return Vec::new();
    }
    let Some(around) = spelling(translator, net.addr(), before) else {
        return Vec::new();
    };
    let with_bit = |bit: u8| {
        let address = around.addr().to_bits() | 1 << (127 - u32::from(bit));
        Ipv6Net::new(Ipv6Addr::from_bits(address), bit + 1).ok()
    };
    (U..AFTER_U).filter_map(with_bit).collect()
}

/// The IPv4 address in an address below a translator's prefix of this length.
#[must_use]
pub fn embedded(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let bits = address.to_bits();
    let at = |end: u8| bits >> (128 - u32::from(end));
    let v4 = if length == 96 {
        bits
    } else {
        let before = (U - length).min(32);
        let after = 32 - before;
        let upper = at(length + before) & ((1 << before) - 1);
        let lower = at(AFTER_U + after) & ((1 << after) - 1);
        upper << after | lower
    };
    #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits")]
    Ipv4Addr::from_bits(v4 as u32)
}

/// The prefixes of translators in the IPv6 addresses that a resolver has for `ipv4only.arpa` (RFC 7050, 3).
#[must_use]
pub fn translators(addresses: impl IntoIterator<Item = Ipv6Addr>) -> BTreeSet<Prefix> {
    let mut found = BTreeSet::new();
    for address in addresses {
        for length in LENGTHS {
            if IPV4_ONLY.contains(&embedded(address, length))
                && let Ok(prefix) = Ipv6Net::new(address, length)
                && prefix.trunc() != WELL_KNOWN
            {
                found.insert(prefix.trunc());
            }
        }
    }
    found.into_iter().take(MOST).collect()
}

/// The translator and the IPv4 address, if an address is a spelling of one.
#[must_use]
pub fn meaning(address: IpAddr, translators: &BTreeSet<Prefix>) -> Option<(Prefix, Ipv4Addr)> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let mut all = [&WELL_KNOWN].into_iter().chain(translators);
    let translator = all.find(|prefix| prefix.contains(&address))?;
    Some((*translator, embedded(address, translator.prefix_len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hostset::{prefix, single};

    fn net(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn v4(text: &str) -> Prefix {
        let net: Ipv4Net = text.parse().unwrap();
        prefix(net.addr().into(), net.prefix_len()).unwrap()
    }

    /// The examples of RFC 6052, 2.4: the translator, and 192.0.2.33 below it.
    const EXAMPLES: [(&str, &str); 7] = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];

    fn contains(set: &BTreeSet<Prefix>, address: &str) -> bool {
        let single = single(address.parse().unwrap());
        set.iter().any(|prefix| prefix.contains(&single))
    }

    #[test]
    fn the_examples_of_the_standard_are_spelled_and_read() {
        for (translator, spelled) in EXAMPLES {
            let translator = net(translator);
            let found = spellings([v4("192.0.2.33/32")], &BTreeSet::from([translator]));
            assert!(contains(&found, spelled), "{translator}: {found:?}");
            let neighbour = spelling(translator, Ipv4Addr::new(192, 0, 2, 34), 32).unwrap();
            let neighbour = neighbour.addr().to_string();
            assert!(!contains(&found, &neighbour), "{translator}: {neighbour}");
            let read = embedded(spelled.parse().unwrap(), translator.prefix_len());
            assert_eq!(read, Ipv4Addr::new(192, 0, 2, 33), "{translator}");
            let all = BTreeSet::from([translator]);
            let meant = meaning(spelled.parse().unwrap(), &all);
            assert_eq!(meant, Some((translator, read)));
        }
    }

    #[test]
    fn each_length_of_an_ipv4_prefix_has_the_addresses_in_it_and_no_others() {
        let address = Ipv4Addr::new(0b1010_0101, 0b0101_1010, 0b1100_0011, 0b0011_1100);
        for (translator, _) in EXAMPLES {
            let translator = net(translator);
            for length in 0..=32 {
                let prefix = Ipv4Net::new(address, length).unwrap().trunc();
                let found = spelling(translator, prefix.addr(), length).unwrap();
                for bit in 0..32 {
                    let other = Ipv4Addr::from_bits(address.to_bits() ^ 1 << (31 - bit));
                    let other_spelled = spelling(translator, other, 32).unwrap();
                    let is_in = found.contains(&other_spelled);
                    assert_eq!(
                        is_in,
                        prefix.contains(&other),
                        "{translator} {prefix} {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_address_whose_reserved_octet_is_set_is_covered_too() {
        for (translator, set) in [
            ("2001:db8:100::/40", "2001:db8:1c0:2:121::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:ff02:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:8000:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:4c0:2:2100::"),
        ] {
            let found = spellings([v4("192.0.2.33/32")], &BTreeSet::from([net(translator)]));
            assert!(contains(&found, set), "{translator}: {found:?}");
        }
        let lan = spellings([v4("10.0.0.0/8")], &BTreeSet::from([net("2001:db8::/40")]));
        assert_eq!(lan.len(), 2, "it ends before that octet: {lan:?}");
    }

    #[test]
    fn ipv6_members_are_not_translated_and_neighbours_are_joined() {
        let many = (0..=255).map(|last| v4(&format!("10.0.0.{last}/32")));
        let found = spellings(many.chain([net("2001:db8::1/128")]), &BTreeSet::new());
        assert_eq!(found, BTreeSet::from([net("64:ff9b::a00:0/120")]));
    }

    #[test]
    fn translators_are_found_by_the_well_known_name() {
        for (translator, _) in EXAMPLES {
            let translator = net(translator);
            let answers = IPV4_ONLY.map(|v4| spelling(translator, v4, 32).unwrap().addr());
            let found = translators(answers);
            let expected = (translator != WELL_KNOWN).then_some(translator);
            assert_eq!(found, expected.into_iter().collect(), "{translator}");
        }
        // A resolver that has answers of its own.
        let other = ["2001:db8::1", "::", "::ffff:192.0.0.1"];
        assert!(translators(other.map(|text| text.parse().unwrap())).is_empty());
        let flood = (0..100).map(|n| {
            let network = format!("2001:db8:{n:x}::/96");
            spelling(net(&network), IPV4_ONLY[0], 32).unwrap().addr()
        });
        assert_eq!(translators(flood).len(), MOST);
    }
}
