//! The errors of the rule grammar. Each message names the text at fault, and ends in the remedy.

use std::fmt;

use qfence_common::Action;

use super::ports::parse;
use crate::policy::{
    domain::{DomainName, DomainPattern, NotAName},
    ports::Ports,
    protocol::{NUMBER_PREFIX, Proto},
    rule::{Destination, Match},
    set::SetName,
};

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the message of each variant documents it and its fields"
)]
pub enum RuleError {
    #[error("the rule is empty: write [PROTOCOL:]DESTINATION[:PORTS], as tcp:192.0.2.1:443 or lan")]
    Empty,
    #[error(
        "{} has white space or control characters in it: leave them out",
        quote(text)
    )]
    Blank { text: String },
    #[error(
        "{} has more colons than [PROTOCOL:]DESTINATION[:PORTS]: write ports as 80,443,8000-8080, \
             and IPv6 addresses in brackets",
        quote(text)
    )]
    TooManyParts { text: String },

    #[error("{} is no protocol{}: write {}, or {NUMBER_PREFIX}N for the one of number N",
            quote(name), did_you_mean(*nearest), list(Proto::names()))]
    UnknownProtocol {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error(
        "{} is no protocol: write {NUMBER_PREFIX}N with N from 1 to 255",
        quote(text)
    )]
    ProtocolNumber { text: String },

    #[error(
        "{} names no destination: write {instead} if every destination is meant",
        quote(text)
    )]
    NoDestination { text: String, instead: String },
    #[error("{} is no destination{}: write an address, a prefix, a name of at least two labels such as www.example.org, or {}",
            quote(name), did_you_mean(*nearest), list(sets(*action)))]
    UnknownDestination {
        name: String,
        nearest: Option<&'static str>,
        action: Action,
    },
    #[error("{} is no name: {why}", quote(name))]
    NotAName { name: String, why: NotAName },
    #[error("{} is a URL: write {instead}", quote(text))]
    Url { text: String, instead: String },
    #[error(
        "{} has a path, and a rule is about whole hosts: write {name}",
        quote(text)
    )]
    Path { text: String, name: DomainName },
    #[error(
        "{} has a star where none can be: write *.example.org for all names below example.org, or \
             any for every destination",
        quote(name)
    )]
    Star { name: String },
    #[error(
        "{} would be all names of a top-level domain: write at least two labels after the star, as in *.example.org",
        quote(name)
    )]
    StarOfOneLabel { name: String },
    #[error(
        "{} denies a name, and a name is denied by refusing its look-up, whatever the protocol and port: write {name}",
        quote(text)
    )]
    DeniedNameWithPorts { text: String, name: DomainPattern },
    #[error(
        "{} is a host name: write the set loopback, or 127.0.0.1 or [::1]",
        quote(name)
    )]
    Localhost { name: String },

    #[error(
        "{} is no IPv4 address: write four numbers from 0 to 255 with dots between, without \
             leading zeros",
        quote(text)
    )]
    NotV4 { text: String },
    #[error(
        "{} is no IPv6 address: write one as 2001:db8::1, and as [2001:db8::1]:443 if ports \
             follow",
        quote(text)
    )]
    NotV6 { text: String },
    #[error(
        "{} is no address: write one as 192.0.2.1 or [2001:db8::1]",
        quote(text)
    )]
    NotAnAddress { text: String },
    #[error(
        "{} names a zone, but a rule applies on every device: write {without}",
        quote(text)
    )]
    Zone { text: String, without: Destination },
    #[error(
        "{} could be an address, or an address and a port: write {address} or {port}",
        quote(text)
    )]
    AddressOrPort {
        text: String,
        address: String,
        port: String,
    },
    #[error(
        "{} needs brackets, with a protocol or ports beside it: write {instead}",
        quote(text)
    )]
    NoBrackets { text: String, instead: String },
    #[error(
        "{} has no closing bracket: write [ADDRESS] or [ADDRESS]:PORTS",
        quote(text)
    )]
    OpenBracket { text: String },
    #[error(
        "{} cannot follow a closing bracket: write [ADDRESS/LENGTH]:PORTS",
        quote(text)
    )]
    AfterBracket { text: String },

    #[error(
        "{} has no length of a prefix after the slash: write a number from 0 to {most} there",
        quote(text)
    )]
    PrefixLength { text: String, most: u8 },
    #[error(
        "{} has bits set beyond its length: write {network} for the prefix or {address} for the \
             address",
        quote(text)
    )]
    HostBits {
        text: String,
        network: Destination,
        address: Destination,
    },
    #[error(
        "{} is a prefix of IPv4 and of IPv6 at once: write {network} for the IPv4 prefix",
        quote(text)
    )]
    MappedLength { text: String, network: Destination },

    #[error(
        "{} ends in a colon: write ports after it, or leave it out for every port",
        quote(text)
    )]
    PortsMissing { text: String },
    #[error(
        "{} lacks a port between commas: write ports as 80,443,8000-8080",
        quote(text)
    )]
    EmptyItem { text: String },
    #[error("{} is no port: write a number from 1 to 65535", quote(text))]
    Port { text: String },
    #[error(
        "port 0 cannot be reached: write a number from 1 to 65535, or leave it out for every port"
    )]
    PortZero,
    #[error("{} is no range of ports: write FIRST-LAST, as 8000-8080", quote(text))]
    OpenRange { text: String },
    #[error("the range of ports {first}-{last} ends before it begins: write {last}-{first}")]
    ReversedRange { first: u16, last: u16 },
    #[error("{protocol} has no ports: write {instead}")]
    NoPortsThere { protocol: Proto, instead: Match },

    #[error(
        "the set self has listeners of TCP, and of UDP for given ports: write self, tcp:self:8000 or udp:self:5353"
    )]
    NotOfSelf,
    #[error(
        "the set self cannot be denied, only left out: a listener of the fence is refused unless a rule allows it"
    )]
    DeniedSelf,

    #[error(
        "{destination} is more than one address, and the question is about one: write an address"
    )]
    ManyAddresses { destination: Destination },
    #[error(
        "{pattern} is more than one name, and the question is about one: write a name below it, such as www.{}",
        pattern.name
    )]
    ManyNames { pattern: DomainPattern },
    #[error(
        "{} is more than one port, and the question is about one: write a port, or none",
        cut(&ports.to_string())
    )]
    ManyPorts { ports: Ports },
}

impl RuleError {
    pub(super) fn unknown_protocol(name: &str) -> Self {
        Self::UnknownProtocol {
            name: name.into(),
            nearest: nearest(name, Proto::names()),
        }
    }

    /// The error for a word that is no destination in a rule with this action.
    pub(super) fn unknown_destination(name: &str, action: Action) -> Self {
        Self::UnknownDestination {
            name: name.into(),
            nearest: nearest(name, sets(action)),
            action,
        }
    }

    /// The error for a protocol or ports without a destination; suggests `any` for it.
    pub(super) fn no_destination(text: &str, protocol: Proto, ports: Option<&str>) -> Self {
        let mut instead = match protocol {
            Proto::Any => "any".to_owned(),
            protocol => format!("{protocol}:any"),
        };
        let is_valid = |ports: &&str| protocol.has_ports() && parse(text, ports).is_ok();
        if let Some(ports) = ports.filter(is_valid) {
            instead.push(':');
            instead.push_str(advised(ports));
        }
        Self::NoDestination {
            text: text.into(),
            instead,
        }
    }
}

/// The most characters of a text that are shown.
const MOST: usize = 60;

/// Text in quotes, safe to print and shortened.
fn quote(text: &str) -> impl fmt::Display {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Ports in an advised rule. Long ones are not repeated: a part of them would be another rule, or none.
pub(super) fn advised(ports: &str) -> &str {
    match ports.len() > MOST {
        true => "PORTS",
        false => ports,
    }
}

/// Text without quotes, safe to print and shortened. Never for a rule that is advised.
fn cut(text: &str) -> impl fmt::Display {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The names of the sets that a rule with this action can name.
fn sets(action: Action) -> impl Iterator<Item = &'static str> {
    let can_be = move |set: &SetName| action == Action::Allow || *set != SetName::Fence;
    SetName::ALL.into_iter().filter(can_be).map(SetName::name)
}

fn did_you_mean(name: Option<&str>) -> impl fmt::Display {
    name.map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> impl fmt::Display {
    names.collect::<Vec<_>>().join(", ")
}

/// The name that a typing error was meant to be: in lower case, one slip away, or two if it is long.
fn nearest(typed: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    const LONGEST: usize = 20;
    if typed.chars().count() > LONGEST {
        return None;
    }
    let typed = typed.to_lowercase();
    names
        .map(|name| (strsim::osa_distance(&typed, name), name))
        .filter(|&(distance, name)| distance <= (name.len() / 3).clamp(1, 2))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}
