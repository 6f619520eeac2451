//! Parses the nameservers in the text of a resolv.conf(5).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::policy::{Prefix, hostset::single};

/// The most nameservers that are read from a file. C libraries use three, other resolvers more.
pub const MOST: usize = 32;

/// The addresses of the `nameserver` lines.
///
/// Parsed as resolvers do: they skip invalid lines, and so does this function. One invalid line must not cost a guest
/// its DNS.
#[must_use]
pub fn parse(resolv_conf: &[u8]) -> BTreeSet<Prefix> {
    resolv_conf
        .split(|byte| *byte == b'\n')
        .filter_map(nameserver)
        .take(MOST)
        .flat_map(|address| [address, as_connected(address)])
        .map(single)
        .collect()
}

/// The address to which the kernel connects. For the unspecified address that is loopback
/// (`ip_route_output_key_hash_rcu` in net/ipv4/route.c, `ip6_dst_lookup_tail`'s callers in net/ipv6/tcp_ipv6.c and
/// datagram.c). In resolv.conf(5) it means a server on this machine.
fn as_connected(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// The nameserver of a line, as glibc (`res_vinit_1` in resolv/res_init.c) and other resolvers parse it. Space before
/// the word and a carriage return at the end are accepted.
fn nameserver(line: &[u8]) -> Option<IpAddr> {
    // C strings end there.
    let line = line.split(|byte| *byte == 0).next()?;
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    if words.next() != Some(b"nameserver") {
        return None;
    }
    let word = words.next()?;
    // The C library accepts any zone.
    let (address, has_zone) = match word.iter().position(|byte| *byte == b'%') {
        Some(zone) => (&word[..zone], true),
        None => (word, false),
    };
    let text = str::from_utf8(address).ok()?;
    match v4(text) {
        Some(address) if !has_zone => Some(address.into()),
        _ => text.parse().ok().map(IpAddr::V6),
    }
}

/// Parses an IPv4 address like inet_aton(3): one to four numbers, the last of which fills the remaining bytes. Each
/// is decimal, octal (`010`) or hexadecimal (`0x8`).
fn v4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, bytes) = numbers.split_last()?;
    let left = 32_u32.checked_sub(8 * u32::try_from(bytes.len()).ok()?)?;
    let mut address: u32 = 0;
    for byte in bytes {
        address = address << 8 | u32::from(u8::try_from(*byte).ok()?);
    }
    let address = u64::from(address) << left | u64::from(*last);
    let is_last_too_large = left == 0 || u64::from(*last) >> left != 0;
    (!is_last_too_large)
        .then(|| u32::try_from(address).ok())?
        .map(Ipv4Addr::from)
}

/// Parses a number like strtoul(3) with base 0, without a sign.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix('0') {
        Some(rest) if rest.starts_with(['x', 'X']) => (&rest[1..], 16),
        Some(rest) if !rest.is_empty() => (rest, 8),
        _ => (text, 10),
    };
    // The standard library would accept a sign.
    let is_digit = |digit: char| digit.is_digit(radix);
    if digits.is_empty() || !digits.chars().all(is_digit) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(text: &str) -> Vec<String> {
        parse(text.as_bytes())
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
    fn ipv4_is_read_as_the_c_library_reads_it() {
        for (text, address) in [
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7f.0.0.053", "127.0.0.43"),
            ("2130706433", "127.0.0.1"),
            ("1.2.65535", "1.2.255.255"),
        ] {
            let expected = format!("::ffff:{address}/128");
            assert_eq!(
                addresses(&format!("nameserver {text}")),
                [expected],
                "{text}"
            );
        }
        for text in [
            "256.1",
            "1.2.65536",
            "1.2.3.256",
            "1.2.3.4.5",
            "4294967296",
            "0x",
            "08",
            "+1.2.3.4",
            "1..2",
            ".1",
            "1.2.3.4x",
            "127.0.0.1%lo",
            "0x1g",
        ] {
            assert!(
                addresses(&format!("nameserver {text}")).is_empty(),
                "{text}"
            );
        }
        assert_eq!(parse(b"nameserver 127.0.0.1\0x\xff").len(), 1);
    }

    #[test]
    fn of_a_long_file_the_first_are_taken() {
        let line = |number: usize| format!("nameserver 10.0.0.{number}\n");
        let text: String = (1..=2 * MOST).map(line).collect();
        let found = addresses(&text);
        assert_eq!(found.len(), MOST);
        assert!(found.contains(&format!("::ffff:10.0.0.{MOST}/128")));
    }

    #[test]
    fn what_resolvers_skip_is_skipped() {
        assert!(addresses("nameserver\nnameserver localhost\nnameserver 1.2.3.\n").is_empty());
        assert!(addresses("; nameserver 127.0.0.1\nnameservers 127.0.0.1").is_empty());
        assert!(addresses("").is_empty());
    }
}
