//! A rule: its action, its matches, and its source.

mod source;

use std::{collections::BTreeSet, fmt, iter, net::Ipv6Addr};

use ipnet::Ipv6Net;
use qfence_common::{Action, Protocol, address::V4_PREFIX_BITS};
use serde::{Deserialize, Serialize};
pub use source::{Source, Until};

use super::{
    Prefix,
    domain::DomainPattern,
    members::members,
    ports::Ports,
    protocol::{Proto, WITH_PORTS},
    set::SetName,
};

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The action for all that it matches.
    #[serde(with = "action")]
    pub action: Action,
    /// The matches; one of them is sufficient.
    pub matches: Vec<Match>,
    /// The author's comment, for logs: one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Its source.
    pub source: Source,
}

/// A protocol, destination and ports that a rule matches.
///
/// Its text is in the rule grammar (see [`super::grammar`]), in which it is also stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Match {
    /// The protocol.
    pub protocol: Proto,
    /// The destination.
    pub destination: Destination,
    /// The ports.
    pub ports: Ports,
}

/// The destination of a match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// An address or a prefix, without bits beyond its length. An IPv6 prefix does not include IPv4: see
    /// [`Destination::prefixes`].
    Prefix(Prefix),
    /// A named set.
    Set(SetName),
    /// A name, or all names below one. Its addresses are not part of the policy: see [`qfence_common::resolved`].
    Name(DomainPattern),
}

/// The most matches that the brief text of a rule shows.
const SHOWN: usize = 3;

impl Rule {
    /// Its text, shortened if the list of matches is long.
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
    /// A match of every protocol and port of a destination.
    #[must_use]
    pub const fn all_of(destination: Destination) -> Self {
        Self {
            protocol: Proto::Any,
            destination,
            ports: Ports::EVERY,
        }
    }

    /// The effective pairs of protocol and ports:
    ///
    /// - with ports and no protocol, the protocols that have ports ([`WITH_PORTS`]);
    /// - of `dns` with no protocol, UDP and TCP;
    /// - of `dns` with no ports and a protocol that has some, port 53;
    /// - of `self` with no protocol, TCP and UDP if there are ports, otherwise TCP; with no ports, those from 1024 on;
    /// - of `icmp`, ICMP and `ICMPv6`.
    #[must_use]
    pub fn in_effect(&self) -> Vec<(Protocol, Ports)> {
        if self.is_self() {
            return self.in_effect_of_self();
        }
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

    /// Whether it is a match of the set `self`: not all destinations of an address, but those with a listener of the
    /// fence's own.
    #[must_use]
    pub fn is_self(&self) -> bool {
        self.destination == Destination::Set(SetName::Fence)
    }

    /// The names that it matches, if its destination is given by name.
    #[must_use]
    pub const fn pattern(&self) -> Option<&DomainPattern> {
        match &self.destination {
            Destination::Name(pattern) => Some(pattern),
            Destination::Prefix(_) | Destination::Set(_) => None,
        }
    }

    fn in_effect_of_self(&self) -> Vec<(Protocol, Ports)> {
        let protocols = match self.protocol {
            Proto::Any if self.ports.is_every() => vec![Protocol::TCP],
            Proto::Any => vec![Protocol::TCP, Protocol::UDP],
            Proto::Number(number) => vec![Protocol(number.into())],
            Proto::Icmp => Vec::new(),
        };
        let ports = if self.ports.is_every() {
            Ports::unprivileged()
        } else {
            self.ports.clone()
        };
        iter::zip(protocols, iter::repeat(ports)).collect()
    }
}

/// `::ffff:0:0/96`, the range of IPv4 in the key space.
pub(crate) const V4: Prefix =
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), V4_PREFIX_BITS);

impl Destination {
    /// Its prefixes, or `None` if they depend on the host ([`members`]). A name has none.
    ///
    /// IPv4 is `::ffff:0:0/96` in the key space, so `::/0` would include it. But an IPv6 prefix in a rule means only
    /// IPv6. A prefix that contains the IPv4 range is replaced by the prefixes around that range, up to 96. `any` is
    /// both families, and one prefix.
    #[must_use]
    pub fn prefixes(&self) -> Option<BTreeSet<Prefix>> {
        match *self {
            Self::Prefix(prefix) => Some(without_v4(prefix)),
            Self::Set(name) => members(name),
            Self::Name(_) => Some(BTreeSet::new()),
        }
    }
}

/// A prefix without the IPv4 range.
pub(crate) fn without_v4(prefix: Prefix) -> BTreeSet<Prefix> {
    if prefix.prefix_len() >= V4_PREFIX_BITS || !prefix.contains(&V4) {
        return BTreeSet::from([prefix]);
    }
    // For each length down to that of the IPv4 range: the half that does not contain it.
    (prefix.prefix_len() + 1..=V4_PREFIX_BITS)
        .filter_map(|length| {
            let other = V4.addr().to_bits() ^ (1 << (128 - u32::from(length)));
            Ipv6Net::new(Ipv6Addr::from_bits(other), length).ok()
        })
        .map(|net| net.trunc())
        .collect()
}

/// Its canonical text. IPv6 is in brackets, with or without ports.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self {
            Self::Set(name) => return name.fmt(f),
            Self::Name(pattern) => return pattern.fmt(f),
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

/// Its canonical text, which the rule grammar parses to the same match.
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

/// Serialises an action as its name.
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
