//! Parses the nameservers in the text of a resolv.conf(5).

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
};

use nix::net::if_::if_nametoindex;

use crate::policy::{
    Prefix,
    hostset::{as_connected, single},
};

/// The most nameservers that are read from a file. C libraries use three, other resolvers more.
pub const MOST: usize = 32;

/// A nameserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    /// Its address.
    pub address: IpAddr,
    /// The interface of a link-local address: its name or its number. Each link can have the same addresses. `None` for
    /// other addresses, of which the kernel ignores the zone.
    pub zone: Option<String>,
}

impl Nameserver {
    /// The number of the interface in its zone; `None` without a zone, or if there is no such interface.
    #[must_use]
    pub fn interface(&self) -> Option<u32> {
        let zone = self.zone.as_deref()?;
        if_nametoindex(zone).ok().or_else(|| zone.parse().ok())
    }

    /// Where it receives queries; `None` if there is no interface of its zone.
    #[must_use]
    pub fn endpoint(&self, port: u16) -> Option<SocketAddr> {
        Some(match (self.address, &self.zone) {
            (IpAddr::V6(address), Some(_)) => {
                SocketAddrV6::new(address, port, 0, self.interface()?).into()
            }
            (address, _) => SocketAddr::new(address, port),
        })
    }

    /// The prefixes of its address, and of the address to which the kernel connects instead: in resolv.conf(5) the
    /// unspecified address means a server on this machine.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + use<> {
        [self.address, as_connected(self.address)]
            .into_iter()
            .map(single)
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            None => write!(f, "{}", self.address),
            Some(zone) => write!(f, "{}%{zone}", self.address),
        }
    }
}

/// The nameservers of the `nameserver` lines, in their order.
///
/// Parsed as resolvers do: they skip invalid lines, and so does this function. One invalid line must not cost a guest
/// its DNS.
#[must_use]
pub fn list(resolv_conf: &[u8]) -> Vec<Nameserver> {
    resolv_conf
        .split(|byte| *byte == b'\n')
        .filter_map(nameserver)
        .take(MOST)
        .collect()
}

/// The addresses of the `nameserver` lines, without their interfaces.
#[must_use]
pub fn parse(resolv_conf: &[u8]) -> BTreeSet<Prefix> {
    let all = list(resolv_conf);
    all.iter().flat_map(Nameserver::prefixes).collect()
}

/// The nameserver of a line, as glibc (`res_vinit_1` in resolv/res_init.c) and other resolvers parse it. Space before
/// the word and a carriage return at the end are accepted.
fn nameserver(line: &[u8]) -> Option<Nameserver> {
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
    let (address, zone) = match word.iter().position(|byte| *byte == b'%') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let text = str::from_utf8(address).ok()?;
    let address = match v4(text) {
        Some(address) if zone.is_none() => address.into(),
        _ => IpAddr::V6(text.parse().ok()?),
    };
    let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let zone = zone.filter(|_| is_of_link);
    let zone = zone.map(|zone| String::from_utf8_lossy(zone).into_owned());
    Some(Nameserver { address, zone })
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
