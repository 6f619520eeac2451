//! The nameservers in the text of a resolv.conf(5).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use crate::{hostset::single, policy::Prefix};

/// The addresses of the `nameserver` lines.
///
/// Read as the resolvers read them: what they skip is skipped here, for one bad line must not cost
/// a guest its DNS. (A parser that fails on the file as a whole would.)
#[must_use]
pub fn parse(resolv_conf: &str) -> BTreeSet<Prefix> {
    resolv_conf
        .lines()
        .filter_map(nameserver)
        .map(single)
        .collect()
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
    fn what_resolvers_skip_is_skipped() {
        assert!(addresses("nameserver\nnameserver localhost\nnameserver 1.2.3\n").is_empty());
        assert!(addresses("; nameserver 127.0.0.1\nnameservers 127.0.0.1").is_empty());
        assert!(addresses("").is_empty());
    }
}
