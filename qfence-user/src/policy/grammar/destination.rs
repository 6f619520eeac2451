//! Parses destinations: addresses, prefixes, sets.

use std::net::{IpAddr, Ipv6Addr};

use qfence_common::{Action, address::V4_PREFIX_BITS};

use super::{
    decimal,
    error::{RuleError, advised},
    ports,
};
use crate::policy::{
    Prefix,
    domain::{DomainName, DomainPattern, NotAName, ends_in_number},
    hostset,
    protocol::Proto,
    rule::{Destination, Match},
    set::SetName,
};

/// Whether the text can only be meant as an IPv6 address or prefix, perhaps with an invalid suffix.
pub(super) fn looks_like_v6(text: &str) -> bool {
    let address = text.split('%').next().unwrap_or_default();
    let first = address.split(':').next().unwrap_or_default();
    address.bytes().filter(|&byte| byte == b':').count() >= 2
        && first.bytes().all(|byte| byte.is_ascii_hexdigit())
        && address.bytes().all(|byte| {
            byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'/' | b',' | b'-')
        })
}

/// Whether a word before a colon is meant as a destination, rather than a protocol.
pub(super) fn is_known(word: &str) -> bool {
    word.is_empty()
        || SetName::named(word).is_some()
        || word.contains(['.', '/', '%', '*'])
        || is_localhost(word)
}

/// Parses the text after an opening bracket: the destination, and the ports after it.
pub(super) fn in_brackets<'a>(
    rule: &str,
    rest: &'a str,
) -> Result<(Destination, Option<&'a str>), RuleError> {
    let Some((inner, after)) = rest.split_once(']') else {
        return Err(RuleError::OpenBracket { text: rule.into() });
    };
    if inner.is_empty() {
        return Err(RuleError::NotAnAddress { text: "[]".into() });
    }
    let (length, ports) = match after.split_once(':') {
        Some((length, ports)) => (length, Some(ports)),
        None => (after, None),
    };
    let network = match (length.strip_prefix('/'), inner.split_once('/')) {
        (None, _) if !length.is_empty() => None,
        (Some(_), Some(_)) => None,
        (Some(length), None) => Some((inner, Some(length))),
        (None, Some((address, length))) => Some((address, Some(length))),
        (None, None) => Some((inner, None)),
    };
    let (address, length) = network.ok_or_else(|| RuleError::AfterBracket {
        text: length.into(),
    })?;
    Ok((Destination::Prefix(prefix(address, length)?), ports))
}

/// Parses an IPv6 address or prefix without brackets.
pub(super) fn bare_v6(
    rule: &str,
    text: &str,
    with_protocol: bool,
) -> Result<Destination, RuleError> {
    let (address, length) = split_length(text);
    let before_port = text.rsplit_once(':').and_then(|(before, port)| {
        let (address, length) = split_length(before);
        (ports::look_like(port)).then_some((prefix(address, length).ok()?, port))
    });
    let whole = prefix(address, length);
    let protocol = &rule[..rule.len() - text.len()];
    let address = |of: Prefix| format!("{protocol}{}", Destination::Prefix(of));
    // With brackets it may still be no rule.
    let with_port = before_port.map(|(before, port)| {
        let before = address(before);
        let checked = format!("{before}:{port}").parse::<Match>();
        checked.map(|_| format!("{before}:{}", advised(port)))
    });
    let text = text.to_owned();
    match (whole, with_port) {
        (Ok(whole), None) if !with_protocol => Ok(Destination::Prefix(whole)),
        (Ok(whole), Some(Ok(port))) => Err(RuleError::AddressOrPort {
            text,
            address: address(whole),
            port,
        }),
        (Ok(whole), None | Some(Err(_))) => Err(RuleError::NoBrackets {
            text,
            instead: address(whole),
        }),
        (Err(_), Some(Ok(instead))) => Err(RuleError::NoBrackets { text, instead }),
        (Err(_), Some(Err(error))) | (Err(error), None) => Err(error),
    }
}

/// Parses a destination without brackets that is not IPv6.
pub(super) fn plain(
    rule: &str,
    protocol: Proto,
    text: &str,
    ports: Option<&str>,
) -> Result<Destination, RuleError> {
    if let Some(set) = SetName::named(text) {
        return Ok(Destination::Set(set));
    }
    if text.is_empty() {
        return Err(RuleError::no_destination(rule, protocol, ports));
    }
    if ports::look_like(text) && ports::parse(rule, text).is_ok() {
        return Err(RuleError::no_destination(rule, protocol, Some(text)));
    }
    let (address, length) = split_length(text);
    if text.contains('%') || ends_in_number(address) {
        return prefix(address, length).map(Destination::Prefix);
    }
    if is_localhost(address) {
        return Err(RuleError::Localhost {
            name: address.into(),
        });
    }
    if text.contains(['.', '*']) {
        return pattern(text).map(Destination::Name);
    }
    Err(RuleError::unknown_destination(text, Action::Allow))
}

/// Parses a name, or a star and a name.
fn pattern(text: &str) -> Result<DomainPattern, RuleError> {
    let (is_below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') || name.is_empty() {
        return Err(RuleError::Star { name: text.into() });
    }
    if let Some((host, _)) = name.split_once('/')
        && let Ok(name) = host.parse::<DomainName>()
    {
        let text = text.into();
        return Err(match is_localhost(name.as_str()) {
            true => RuleError::Localhost { name: text },
            false => RuleError::Path { text, name },
        });
    }
    match name.parse() {
        Ok(name) if is_localhost(DomainName::as_str(&name)) => {
            Err(RuleError::Localhost { name: text.into() })
        }
        Ok(name) => Ok(DomainPattern { name, is_below }),
        Err(NotAName::OneLabel) if is_below => Err(RuleError::StarOfOneLabel { name: text.into() }),
        Err(why) => Err(RuleError::NotAName {
            name: text.into(),
            why,
        }),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    matches!(
        name.as_str(),
        "localhost" | "localhost.localdomain" | "ip6-localhost" | "ip6-loopback"
    ) || name.ends_with(".localhost")
}

fn split_length(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    }
}

/// Parses the prefix of an address and a length.
fn prefix(address: &str, length: Option<&str>) -> Result<Prefix, RuleError> {
    if let Some((before, _)) = address.split_once('%')
        && let Ok(without) = before.parse()
    {
        return Err(RuleError::Zone {
            text: address.into(),
            without: Destination::Prefix(hostset::single(without)),
        });
    }
    let parsed: IpAddr = address
        .parse()
        .map_err(|_| RuleError::not_an_address(address))?;
    let whole = hostset::single(parsed);
    let Some(length) = length else {
        return Ok(whole);
    };
    let mapped = match parsed {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    };
    let bits: Option<u8> = decimal(length);
    if let (Some(v4), Some(bits)) = (mapped, bits)
        && bits < V4_PREFIX_BITS
        // A length of at most 32 was meant for IPv4; a longer one contains all of IPv4.
        && let length = if bits <= 32 { bits } else { 0 }
        && let Some(network) = hostset::prefix(v4.into(), length)
    {
        return Err(RuleError::MappedLength {
            text: format!("{address}/{length}"),
            network: Destination::Prefix(network),
        });
    }
    let prefix = bits.and_then(|bits| hostset::prefix(parsed, bits));
    let prefix = prefix.ok_or_else(|| RuleError::PrefixLength {
        text: format!("{address}/{length}"),
        most: if parsed.is_ipv4() { 32 } else { 128 },
    })?;
    if prefix.addr() != whole.addr() {
        return Err(RuleError::HostBits {
            text: format!("{address}/{length}"),
            network: Destination::Prefix(prefix),
            address: Destination::Prefix(whole),
        });
    }
    Ok(prefix)
}

impl RuleError {
    /// The error for text that is no address of any family.
    fn not_an_address(text: &str) -> Self {
        let text = text.to_owned();
        if text.contains(':') {
            Self::NotV6 { text }
        } else if text.starts_with(|first: char| first.is_ascii_digit()) {
            Self::NotV4 { text }
        } else {
            Self::NotAnAddress { text }
        }
    }
}

/// The address of a prefix that has only one.
pub(super) fn one_address(prefix: Prefix) -> Option<IpAddr> {
    (prefix.prefix_len() == 128).then(|| {
        let address: Ipv6Addr = prefix.addr();
        address.to_canonical()
    })
}
