//! Suggests a profile from the sightings of monitor mode.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use qfence_common::{Action, Protocol, Sighting};

use crate::{
    base::printable::is_unprintable,
    policy::{
        Policy,
        domain::{DomainName, DomainPattern},
        hostset::single,
        ports::Ports,
        protocol::{Proto, WITH_PORTS},
        rule::{Destination, Match},
    },
};

/// How many of the most frequent matches get a rule of their own. The others share one rule, since a policy has room
/// for [`qfence_common::verdict::MAX_RULES`] rules.
const ALONE: usize = 128;

/// A protocol and a place. The ports that were seen there are collected.
type Target = (u32, Place);

/// An address, or the name by which the fence found it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Address(IpAddr),
    Name(DomainName),
}

/// The names that the fence looked up, by address.
pub type NamesByAddress = BTreeMap<IpAddr, Vec<String>>;

/// Items with the number of times that each was seen.
type Counted<T> = Vec<(T, u64)>;

/// A profile, as TOML, that allows the sightings, with their numbers as comments, and otherwise has the rules of the
/// fence's own policy. `unlisted` is the number of sightings for which there was no room. An address that the fence looked up is
/// suggested by its first name in `names`.
#[must_use]
pub fn suggest(
    fence: &str,
    policy: Option<&Policy>,
    seen: &[(Sighting, u64)],
    unlisted: u64,
    names: &NamesByAddress,
) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(
        "# Destinations that monitor mode allowed for the fence {fence}, although its policy denies them."
    ));
    line(
        "# Review each rule before you use it: it shows only that a process in the fence tried to reach a destination.",
    );
    if unlisted > 0 {
        line(&format!(
            "# INCOMPLETE: {unlisted} more attempts went to destinations for which there was no room."
        ));
    }
    let default = policy.map_or(Action::Allow, |policy| {
        policy
            .default
            .as_ref()
            .unwrap_or(&policy.profile.default)
            .action
    });
    line(&format!("default = {}", quoted(word(default))));
    let own = policy.map_or_else(Vec::new, Policy::rules);
    allow(&mut line, seen, names);
    if let Some((_default, own)) = own.split_last()
        && !own.is_empty()
    {
        line("");
        line("# The rules of the fence, in their order.");
        for numbered in own {
            let rule = &numbered.rule;
            let matches: Vec<_> = rule
                .matches
                .iter()
                .map(|of| quoted(&of.to_string()))
                .collect();
            line("");
            line("[[rule]]");
            line(&format!("{} = [{}]", word(rule.action), matches.join(", ")));
            if let Some(comment) = &rule.comment {
                line(&format!("comment = {}", quoted(comment)));
            }
        }
    }
    out
}

/// A profile, as TOML, that allows only the destinations that were let through, with their numbers of calls or packets as
/// comments. `unlisted` is the number of calls to destinations for which there was no room, and `names` is as for [`suggest`].
#[must_use]
pub fn suggest_allowed(
    fence: &str,
    seen: &[(Sighting, u64)],
    unlisted: u64,
    names: &NamesByAddress,
) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        let _ = writeln!(out, "{text}");
    };
    line(&format!(
        "# Destinations that the fence {fence} was allowed to reach, and nothing else."
    ));
    line(
        "# Review each rule before you use it: it shows only that a process in the fence has reached a destination.",
    );
    if unlisted > 0 {
        line(&format!(
            "# INCOMPLETE: {unlisted} more calls went to destinations for which there was no room."
        ));
    }
    line(&format!("default = {}", quoted(word(Action::Deny))));
    allow(&mut line, seen, names);
    out
}

/// Adds rules that allow the destinations.
fn allow(line: &mut impl FnMut(&str), seen: &[(Sighting, u64)], names: &NamesByAddress) {
    let (rules, without) = rules(seen, names);
    let (often, seldom) = rules.split_at(rules.len().min(ALONE));
    for (of, count) in often {
        line("");
        line("[[rule]]");
        line(&format!("allow = {}", quoted(&of.to_string())));
        let mut comment = format!("seen {}", times(*count));
        if may_be_sorting(of, &rules) {
            comment += SORTING;
        }
        line(&format!("comment = {}", quoted(&comment)));
    }
    if !seldom.is_empty() {
        line("");
        line("[[rule]]");
        line("allow = [");
        for (of, count) in seldom {
            line(&format!(
                "  {}, # seen {}",
                quoted(&of.to_string()),
                times(*count)
            ));
        }
        line("]");
        line("comment = \"seen less often than the others\"");
    }
    for (target, count) in without {
        line("");
        line(&format!(
            "# No rule can match only port 0: {target}, seen {}.",
            times(count)
        ));
    }
}

/// The end of the comment of a rule that is perhaps not needed.
const SORTING: &str =
    "; try without: C libraries connect UDP sockets to sort addresses, and send nothing";

/// Whether a rule for UDP may be due to look-ups alone: the same ports were reached by TCP, and getaddrinfo(3) connects UDP
/// sockets to the address and port that it returns.
fn may_be_sorting(of: &Match, rules: &[(Match, u64)]) -> bool {
    let by_tcp = Match {
        protocol: named(Protocol::TCP.0),
        ..of.clone()
    };
    of.protocol == named(Protocol::UDP.0) && rules.iter().any(|(other, _)| *other == by_tcp)
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

/// A text as a TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            plain if !is_unprintable(plain) => out.push(plain),
            other => {
                let _ = match u32::from(other) {
                    number @ 0..=0xffff => write!(out, "\\u{number:04X}"),
                    number => write!(out, "\\U{number:08X}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// The sightings as matches, the most frequent first. The ports of one protocol at one address are one match. Nothing
/// is widened: no rule can match port 0 alone, so such sightings are returned as text.
fn rules(seen: &[(Sighting, u64)], names: &NamesByAddress) -> (Counted<Match>, Counted<String>) {
    let mut targets: BTreeMap<Target, (Vec<u16>, u64)> = BTreeMap::new();
    let mut without = Vec::new();
    for (sighting, count) in seen {
        let address = Ipv6Addr::from(sighting.address.address()).to_canonical();
        let protocol = match sighting.protocol {
            number if number == Protocol::MPTCP.0 => Protocol::TCP.0,
            number => number,
        };
        if sighting.port == 0 && WITH_PORTS.contains(&Protocol(protocol)) {
            without.push((format!("{} to {address}", named(protocol)), *count));
            continue;
        }
        let mut known = names.get(&address).into_iter().flatten();
        let name = known.find_map(|name| name.parse().ok());
        let place = name.map_or(Place::Address(address), Place::Name);
        let (ports, all) = targets.entry((protocol, place)).or_default();
        ports.extend(u16::try_from(sighting.port).ok().filter(|port| *port != 0));
        *all += count;
    }
    let mut rules: Vec<_> = targets
        .into_iter()
        .map(|((protocol, place), (ports, count))| {
            let ports = ports.into_iter().map(|port| port..=port);
            let of = Match {
                protocol: named(protocol),
                destination: match place {
                    Place::Address(address) => Destination::Prefix(single(address)),
                    Place::Name(name) => Destination::Name(DomainPattern {
                        name,
                        is_below: false,
                    }),
                },
                ports: Ports::new(ports).unwrap_or(Ports::EVERY),
            };
            (of, count)
        })
        .collect();
    rules.sort_by_key(|(_, count)| Reverse(*count));
    (rules, without)
}

fn named(protocol: u32) -> Proto {
    match u8::try_from(protocol) {
        Ok(1 | 58) => Proto::Icmp,
        Ok(number) => Proto::Number(number),
        Err(_) => Proto::Any,
    }
}

#[cfg(test)]
mod tests;
