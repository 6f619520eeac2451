//! The grammar of rules, in flags, profiles, stored policies and questions:
//!
//! ```text
//! [PROTOCOL:]DESTINATION[:PORTS]
//!
//! PROTOCOL     tcp udp sctp dccp udplite igmp ipip gre esp ah icmp any proto-N
//! DESTINATION  an address: 192.0.2.1 or [2001:db8::1]
//!              a prefix: 10.0.0.0/8, [fd00::/8] or [fd00::]/8
//!              a set: a name of `SetName::ALL`
//!              a name: example.org, or *.example.org for all names below it
//! PORTS        80,443,8000-8080
//! ```
//!
//! `self` has TCP, and with ports UDP; only a rule that allows can name it ([`of_action`]).
//!
//! `icmp` is ICMP of both families. Without a protocol, or with `any`, a rule matches all protocols; with ports and
//! without a protocol, those that have ports. For `dns` without ports see [`Match::in_effect`].
//!
//! An IPv6 address alone needs no brackets, unless it could be an address and a port. A v4-mapped address is the IPv4
//! address. `::/0` is all of IPv6, `0.0.0.0/0` all of IPv4, `any` both.
//!
//! A rule that denies a name has neither protocol nor ports ([`of_action`]): it refuses the look-up.
//!
//! Ambiguous text is an error, and so are names of one label and zones.

mod denied;
mod destination;
mod error;
mod ports;
mod query;
mod url;

use std::str::FromStr;

use qfence_common::Action;

pub use self::{
    error::RuleError,
    query::{Query, Question},
};
use super::{
    ports::Ports,
    protocol::{NUMBER_PREFIX, Proto},
    rule::Match,
};

/// Parses a question about one destination: `[PROTOCOL:]ADDRESS[:PORT]` or `[PROTOCOL:]NAME[:PORT]`.
///
/// # Errors
/// If it is no rule, or has more than one address or port.
pub fn destination(text: &str) -> Result<Question, RuleError> {
    query::parse(text)
}

/// Parses a match of a rule with this action.
///
/// # Errors
/// If it is no match, or if no rule with this action can have it.
pub fn of_action(action: Action, text: &str) -> Result<Match, RuleError> {
    let parsed = text.parse();
    match action {
        Action::Allow => parsed,
        Action::Deny => denied::check(text, parsed),
    }
}

impl FromStr for Match {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.is_empty() {
            return Err(RuleError::Empty);
        }
        if text
            .chars()
            .any(|character| character.is_whitespace() || character.is_control())
        {
            return Err(RuleError::Blank { text: text.into() });
        }
        if let Some(error) = url::error(Action::Allow, text) {
            return Err(error);
        }
        let (protocol, rest) = split_protocol(text)?;
        let (destination, ports) = if let Some(rest) = rest.strip_prefix('[') {
            destination::in_brackets(text, rest)?
        } else if destination::looks_like_v6(rest) {
            let with_protocol = rest.len() < text.len();
            (destination::bare_v6(text, rest, with_protocol)?, None)
        } else {
            let (place, ports) = match rest.split_once(':') {
                Some((place, ports)) => (place, Some(ports)),
                None => (rest, None),
            };
            (destination::plain(text, protocol, place, ports)?, ports)
        };
        let ports = match ports {
            Some(ports) => ports::parse(text, ports)?,
            None => Ports::EVERY,
        };
        let of = Self {
            protocol,
            destination,
            ports,
        };
        if of.is_self() && !may_be_of_self(&of) {
            return Err(RuleError::NotOfSelf);
        }
        if !of.ports.is_every() && !protocol.has_ports() {
            return Err(RuleError::NoPortsThere {
                protocol,
                instead: Self {
                    ports: Ports::EVERY,
                    ..of
                },
            });
        }
        Ok(of)
    }
}

/// Whether a match of `self` has a protocol for which listeners are found, and ports if that is UDP.
fn may_be_of_self(of: &Match) -> bool {
    let is = |protocol| of.protocol == protocol;
    is(Proto::Any) || is(Proto::TCP) || is(Proto::UDP) && !of.ports.is_every()
}

/// Splits off the protocol. Without one it is `any`.
fn split_protocol(text: &str) -> Result<(Proto, &str), RuleError> {
    let (word, rest) = match text.split_once(':') {
        _ if destination::looks_like_v6(text) || text.starts_with('[') => {
            return Ok((Proto::Any, text));
        }
        Some(halves) => halves,
        // A protocol without a destination; `any` alone is the set.
        None => match protocol(text)? {
            Some(protocol) if protocol != Proto::Any => {
                return Err(RuleError::no_destination(text, protocol, None));
            }
            _ => return Ok((Proto::Any, text)),
        },
    };
    match protocol(word)? {
        // In `any:80` the word is the set, in `any:192.0.2.1` the protocol.
        Some(Proto::Any) if ports::look_like(rest) => Ok((Proto::Any, text)),
        Some(protocol) => Ok((protocol, rest)),
        None if destination::is_known(word) || ports::look_like(rest) || rest.is_empty() => {
            Ok((Proto::Any, text))
        }
        // An invalid IPv6 address.
        None if rest.contains(':') && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err(RuleError::NotV6 { text: text.into() })
        }
        None => Err(RuleError::unknown_protocol(word)),
    }
}

/// The protocol of a word; `None` if it is none.
fn protocol(word: &str) -> Result<Option<Proto>, RuleError> {
    let Some(number) = word.strip_prefix(NUMBER_PREFIX) else {
        return Ok(Proto::named(word));
    };
    match decimal(number) {
        Some(number @ 1..) => Ok(Some(Proto::Number(number))),
        // The first label of a domain name begins like this.
        _ if number.contains('.') => Ok(None),
        _ => Err(RuleError::ProtocolNumber { text: word.into() }),
    }
}

/// Parses digits without a sign or a leading zero, which other programs would read as octal.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
