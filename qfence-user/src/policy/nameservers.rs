//! The nameservers in the text of a resolv.conf(5).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::policy::{Prefix, hostset::single};

/// The addresses of the `nameserver` lines.
///
/// Read as the resolvers read them: what they skip is skipped here, for one bad line must not cost
/// a guest its DNS. (A parser that fails on the file as a whole would.)
#[must_use]
pub fn parse(resolv_conf: &str) -> BTreeSet<Prefix> {
    resolv_conf
        .lines()
        .filter_map(nameserver)
        .flat_map(|address| [address, as_connected(address)])
        .map(single)
        .collect()
}

/// Where the kernel connects what is sent to an address: to loopback for the unspecified one
/// (`ip_route_output_key_hash_rcu` in net/ipv4/route.c, `ip6_dst_lookup_tail`'s callers in
/// net/ipv6/tcp_ipv6.c and datagram.c), as resolv.conf(5) would have it for a server on this machine.
fn as_connected(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let word = words.next()?;
    if let Some((address, _zone)) = word.split_once('%') {
        return address.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        parse(text)
            .into_iter()
            .map(|prefix| prefix.to_string())
            .collect()
    }

    #[test]
    fn both_families_and_zones() {
        let text = "# made by hand\nsearch lan\nnameserver 127.0.0.53\n nameserver\t::1 # local\n\
                    nameserver fe80::1%eth0\noptions edns0 no-such-option\n";
        assert_eq!(
            addresses(text),
            ["::1/128", "::ffff:127.0.0.53/128", "fe80::1/128"]
        );
    }

    #[test]
    fn the_unspecified_address_is_loopback_too() {
        assert_eq!(
            addresses("nameserver 0.0.0.0"),
            ["::ffff:0.0.0.0/128", "::ffff:127.0.0.1/128"]
        );
        assert_eq!(addresses("nameserver ::"), ["::/128", "::1/128"]);
    }

    #[test]
    fn what_resolvers_skip_is_skipped() {
        assert!(addresses("nameserver\nnameserver localhost\nnameserver 1.2.3\n").is_empty());
        assert!(addresses("; nameserver 127.0.0.1\nnameservers 127.0.0.1").is_empty());
        assert!(addresses("").is_empty());
    }
}
