//! A rule: what it does, with what, and who says so.

mod source;

use std::{collections::BTreeSet, fmt, iter, net::Ipv6Addr};

use ipnet::Ipv6Net;
use qfence_common::{Action, Protocol, address::V4_PREFIX_BITS};
use serde::{Deserialize, Serialize};
pub use source::Source;

use super::{
    Prefix,
    members::members,
    ports::Ports,
    protocol::{Proto, WITH_PORTS},
    set::SetName,
};

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// What it does with what it matches.
    #[serde(with = "action")]
    pub action: Action,
    /// What it matches: any of these.
    pub matches: Vec<Match>,
    /// What its author says of it, for logs: one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Where it was given.
    pub source: Source,
}

/// One protocol, destination and ports that a rule is about.
///
/// Its text is that of the rule grammar (see [`super::grammar`]), which is also how it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Match {
    /// The protocol.
    pub protocol: Proto,
    /// Where to.
    pub destination: Destination,
    /// The ports at the destination.
    pub ports: Ports,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// An address or a prefix, with no bits set beyond its length. One of IPv6 is without IPv4: see
    /// [`Destination::prefixes`].
    Prefix(Prefix),
    /// A set with a name.
    Set(SetName),
}

/// How many matches of a rule are shown in brief.
const SHOWN: usize = 3;

impl Rule {
    /// Its text, of a long list no more than the beginning.
    #[must_use]
    pub fn brief(&self) -> String {
        match self.matches.len() {
            0..=SHOWN => self.to_string(),
            all => {
                let shown: Vec<_> = self.matches[..SHOWN].iter().map(Match::to_string).collect();
                let action = action::name(self.action);
                format!("{action} {} and {} more", shown.join(" "), all - SHOWN)
            }
        }
    }
}

impl Match {
    /// Every protocol and port of a destination.
    #[must_use]
    pub const fn all_of(destination: Destination) -> Self {
        Self {
            protocol: Proto::Any,
            destination,
            ports: Ports::EVERY,
        }
    }

    /// The pairs of protocol and ports that it is about in effect:
    ///
    /// - with ports and no protocol, the protocols that have ports ([`WITH_PORTS`]);
    /// - of `dns` with no protocol, UDP and TCP;
    /// - of `dns` with no ports and a protocol that has some, port 53;
    /// - of `icmp`, ICMP and `ICMPv6`.
    #[must_use]
    pub fn in_effect(&self) -> Vec<(Protocol, Ports)> {
        let dns = self.destination == Destination::Set(SetName::Dns);
        let ports = if dns && self.ports.is_every() && self.protocol.has_ports() {
            Ports::dns()
        } else {
            self.ports.clone()
        };
        let protocols = match self.protocol {
            Proto::Any if dns => vec![Protocol::UDP, Protocol::TCP],
            Proto::Any if ports.is_every() => vec![Protocol::ANY],
            Proto::Any => WITH_PORTS.to_vec(),
            Proto::Icmp => vec![Protocol::ICMP, Protocol::ICMPV6],
            Proto::Number(number) => vec![Protocol(number.into())],
        };
        iter::zip(protocols, iter::repeat(ports)).collect()
    }
}

/// `::ffff:0:0/96`, where IPv4 is in the key space.
pub(crate) const V4: Prefix =
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), V4_PREFIX_BITS);

impl Destination {
    /// The prefixes that it is made of, or `None` if that depends on the host ([`members`]).
    ///
    /// IPv4 lies in the key space as `::ffff:0:0/96`, so that `::/0` would hold it. Who writes an
    /// IPv6 prefix means IPv6: what holds that part of the key space becomes the prefixes around it,
    /// 96 of them at most. `any` is both families, and one prefix.
    #[must_use]
    pub fn prefixes(&self) -> Option<BTreeSet<Prefix>> {
        match *self {
            Self::Prefix(prefix) => Some(without_v4(prefix)),
            Self::Set(name) => members(name),
        }
    }
}

/// The prefix, less IPv4 if that is a part of it: of IPv6 alone.
pub(crate) fn without_v4(prefix: Prefix) -> BTreeSet<Prefix> {
    if prefix.prefix_len() >= V4_PREFIX_BITS || !prefix.contains(&V4) {
        return BTreeSet::from([prefix]);
    }
    // At each length on the way down to IPv4: the half that IPv4 is not in.
    (prefix.prefix_len() + 1..=V4_PREFIX_BITS)
        .filter_map(|length| {
            let other = V4.addr().to_bits() ^ (1 << (128 - u32::from(length)));
            Ipv6Net::new(Ipv6Addr::from_bits(other), length).ok()
        })
        .map(|net| net.trunc())
        .collect()
}

/// Its canonical text. IPv6 stands in brackets, with or without ports.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::Set(name) => return name.fmt(f),
            Self::Prefix(prefix) => prefix,
        };
        let v4 = prefix.addr().to_ipv4_mapped();
        match (v4, prefix.prefix_len().checked_sub(V4_PREFIX_BITS)) {
            (Some(address), Some(32)) => write!(f, "{address}"),
            (Some(address), Some(length)) => write!(f, "{address}/{length}"),
            _ if prefix.prefix_len() == 128 => write!(f, "[{}]", prefix.addr()),
            _ => write!(f, "[{prefix}]"),
        }
    }
}

/// Its canonical text, which the rule grammar reads back as the same.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol != Proto::Any {
            write!(f, "{}:", self.protocol)?;
        }
        self.destination.fmt(f)?;
        if !self.ports.is_every() {
            write!(f, ":{}", self.ports)?;
        }
        Ok(())
    }
}

impl From<Match> for String {
    fn from(of: Match) -> Self {
        of.to_string()
    }
}

impl TryFrom<String> for Match {
    type Error = super::grammar::RuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// `deny lan metadata`, `allow tcp:192.0.2.1:80,443`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(action::name(self.action))?;
        self.matches.iter().try_for_each(|of| write!(f, " {of}"))
    }
}

/// An action as the word for it.
mod action {
    use qfence_common::Action;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) const fn name(action: Action) -> &'static str {
        match action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        }
    }

    pub(super) fn serialize<S: Serializer>(
        action: &Action,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name(*action))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Action, D::Error> {
        let word = String::deserialize(deserializer)?;
        [Action::Allow, Action::Deny]
            .into_iter()
            .find(|&action| name(action) == word)
            .ok_or_else(|| D::Error::custom(format!("{word:?} is neither allow nor deny")))
    }
}

#[cfg(test)]
mod tests;
