//! The protocols that rules can name.

use std::fmt;

use qfence_common::Protocol;

/// The protocol of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// Every protocol.
    Any,
    /// ICMP of both families: 1 and 58.
    Icmp,
    /// The protocol of this IP protocol number, which is never 0.
    Number(u8),
}

/// The protocols with ports: TCP, UDP, SCTP, DCCP, UDP-Lite.
///
/// A rule with ports and without a protocol matches these.
pub const WITH_PORTS: [Protocol; 5] = [
    Protocol::TCP,
    Protocol::UDP,
    Protocol(132),
    Protocol(33),
    Protocol(136),
];

/// The names of protocols other than `any` and `icmp`, with their IANA numbers.
const NAMES: [(&str, u8); 10] = [
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("dccp", 33),
    ("udplite", 136),
    ("igmp", 2),
    ("ipip", 4),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
];

/// The prefix of a protocol without a name: `proto-47`. A bare number would look like the beginning of an IPv6
/// address.
pub const NUMBER_PREFIX: &str = "proto-";

impl Proto {
    /// TCP.
    pub const TCP: Self = Self::Number(6);
    /// UDP.
    pub const UDP: Self = Self::Number(17);

    /// The protocol of a name; not for `proto-N`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "any" => Some(Self::Any),
            "icmp" => Some(Self::Icmp),
            _ => NAMES
                .iter()
                .find(|(known, _)| *known == name)
                .map(|&(_, number)| Self::Number(number)),
        }
    }

    /// All names, for help and errors.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|&(name, _)| name).chain(["icmp", "any"])
    }

    /// Whether a rule for it can have ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        match self {
            Self::Any => true,
            Self::Icmp => false,
            Self::Number(number) => WITH_PORTS.contains(&Protocol(number.into())),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => f.write_str("any"),
            Self::Icmp => f.write_str("icmp"),
            Self::Number(number) => match NAMES.iter().find(|(_, known)| *known == number) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{NUMBER_PREFIX}{number}"),
            },
        }
    }
}

/// The number of a name from [`protocol_name`].
pub(crate) fn protocol_number(name: &str) -> Option<u32> {
    let named = [1, 6, 17, 33, 58, 115, 132, 136, 262];
    let is = |number: &u32| protocol_name(*number) == name;
    named.into_iter().find(is).or_else(|| name.parse().ok())
}

/// The name of a socket's IPPROTO_* number, as in /etc/protocols.
pub(crate) fn protocol_name(number: u32) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        33 => "dccp".into(),
        58 => "ipv6-icmp".into(),
        115 => "l2tp".into(),
        132 => "sctp".into(),
        136 => "udplite".into(),
        262 => "mptcp".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_protocol() {
        for name in Proto::names() {
            assert_eq!(Proto::named(name).unwrap().to_string(), name);
        }
        assert_eq!(Proto::named("tcp"), Some(Proto::TCP));
        assert_eq!(Proto::named("udp"), Some(Proto::UDP));
        assert_eq!(Proto::named("TCP"), None);
        assert_eq!(Proto::named("proto-6"), None);
    }

    #[test]
    fn what_has_no_name_has_its_number() {
        assert_eq!(Proto::Number(253).to_string(), "proto-253");
        assert_eq!(Proto::Number(58).to_string(), "proto-58");
    }

    #[test]
    fn tcp_and_its_like_have_ports() {
        let with: Vec<_> = Proto::names()
            .filter(|name| Proto::named(name).unwrap().has_ports())
            .collect();
        assert_eq!(with, ["tcp", "udp", "sctp", "dccp", "udplite", "any"]);
    }
}
