//! Why a destination is let through or refused: what the entry of its prefix says, rule by rule.

mod cases;

use std::{collections::BTreeMap, net::IpAddr};

pub use cases::Case;
use cases::{boundaries, spell};
use ipnet::Ipv6Net;
use qfence_common::{
    Action, Entry, Nodes, Path, Protocol,
    decide::{NO_RULE, query},
    entry::MONITOR,
};
use serde::Serialize;

use crate::{
    hostset::single,
    policy::{
        Numbered, Prefix, Sets,
        grammar::Query,
        protocol::Proto,
        rule::{Destination, Match, Rule},
        set::SetName,
    },
};

/// QEMU's name for its host in the guest's network.
const HOST_OF_QEMU: &str = "10.0.2.2";

/// What a policy is asked with.
pub struct Asked<'a, N> {
    /// Its rules.
    pub rules: &'a [Numbered],
    /// The members of the sets it was compiled with.
    pub sets: &'a Sets,
    /// The trees of its entries.
    pub nodes: &'a N,
}

/// What happens to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The address; a v4-mapped one is the IPv4 address.
    pub address: IpAddr,
    /// When it is called, and when a packet leaves for it through a device.
    pub by_address: Vec<Case>,
    /// When a packet leaves through the loopback device, whatever its address.
    pub through_loopback: Vec<Case>,
    /// What else there is to know.
    pub hint: Option<String>,
}

/// Explains one destination. `entry` looks up the entry of an address on a path.
///
/// # Errors
/// What `entry` fails with.
pub fn explain<N: Nodes>(
    asked: &Asked<'_, N>,
    what: &Query,
    entry: impl Fn(Path, IpAddr) -> anyhow::Result<Option<Entry>>,
) -> anyhow::Result<Explanation> {
    let on = |path| -> anyhow::Result<Vec<Case>> {
        Ok(asked.cases(what, path, entry(path, what.address)?))
    };
    Ok(Explanation {
        address: what.address.to_canonical(),
        by_address: on(Path::Address)?,
        through_loopback: on(Path::Loopback)?,
        hint: hint(what.address),
    })
}

fn hint(address: IpAddr) -> Option<String> {
    (address.to_canonical().to_string() == HOST_OF_QEMU).then(|| {
        format!(
            "{HOST_OF_QEMU} in a guest of QEMU's user network is the host: there the fence sees \
             127.0.0.1 in its place"
        )
    })
}

impl<N: Nodes> Asked<'_, N> {
    fn cases(&self, what: &Query, path: Path, entry: Option<Entry>) -> Vec<Case> {
        let monitored = entry.is_some_and(|entry| entry.has(MONITOR));
        let Some(entry) = entry else {
            return vec![self.case(
                what,
                path,
                String::new(),
                Action::Deny,
                NO_RULE,
                None,
                false,
            )];
        };
        // What is asked about, cut where the verdict changes.
        let all = boundaries(&entry, self.nodes);
        let mut by_rule: BTreeMap<u32, (Action, Vec<(u32, u32)>)> = BTreeMap::new();
        for interval in asked_about(what) {
            for (index, (from, verdict)) in all.iter().enumerate() {
                let to = all.get(index + 1).map_or(u32::MAX, |(next, _)| next - 1);
                let (first, last) = (interval.0.max(*from), interval.1.min(to));
                if first <= last {
                    let found = by_rule.entry(verdict.rule());
                    let found = found.or_insert((verdict.action(), Vec::new()));
                    found.1.push((first, last));
                }
            }
        }
        let order = |number: u32| self.rules.iter().position(|rule| rule.number == number);
        let mut found: Vec<_> = by_rule.into_iter().collect();
        found.sort_by_key(|(number, _)| order(*number));
        let count = found.len();
        found
            .into_iter()
            .enumerate()
            .map(|(index, (number, (action, intervals)))| {
                let which = match (count, index + 1 == count) {
                    (1, _) => String::new(),
                    (_, true) => "the rest".to_owned(),
                    (_, false) => spell(&intervals),
                };
                let example = intervals.first().map(|(first, _)| *first);
                self.case(what, path, which, action, number, example, monitored)
            })
            .collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a case")]
    fn case(
        &self,
        what: &Query,
        path: Path,
        which: String,
        action: Action,
        number: u32,
        example: Option<u32>,
        monitored: bool,
    ) -> Case {
        let found = self.rules.iter().find(|rule| rule.number == number);
        let rule = found.map(|numbered| &numbered.rule);
        let member = rule
            .zip(example)
            .and_then(|(rule, example)| self.member(rule, example, path, what.address));
        Case {
            which,
            verdict: match (action, monitored) {
                (Action::Allow, _) => "allow",
                (Action::Deny, true) => "monitored",
                (Action::Deny, false) => "deny",
            },
            rule: rule.map_or_else(|| "no policy".to_owned(), Rule::brief),
            source: rule.map(|rule| rule.source.to_string()),
            comment: rule.and_then(|rule| rule.comment.clone()),
            set: member.map(|(destination, _)| destination.to_string()),
            member: member
                .and_then(|(_, member)| member)
                .map(|prefix| Destination::Prefix(prefix).to_string()),
        }
    }

    /// Of a rule, the destination by which it matches, and the member of that set that has the address;
    /// none if it is so for the path alone, or for being in no other set.
    fn member(
        &self,
        rule: &Rule,
        example: u32,
        path: Path,
        address: IpAddr,
    ) -> Option<(Destination, Option<Prefix>)> {
        let address = single(address);
        rule.matches.iter().find_map(|of| {
            if !is_about(of, example) {
                return None;
            }
            let members = match of.destination {
                Destination::Set(SetName::Host) if path == Path::Loopback => {
                    return Some((of.destination, None));
                }
                Destination::Set(SetName::Internet | SetName::Any) => {
                    return Some((of.destination, None));
                }
                Destination::Set(SetName::Host) => self.sets.host.clone(),
                Destination::Set(SetName::Dns) => self.sets.nameservers.clone(),
                other => other.prefixes().unwrap_or_default(),
            };
            members
                .into_iter()
                .filter(|member| member.contains(&address))
                .max_by_key(Ipv6Net::prefix_len)
                .map(|member| (of.destination, Some(member)))
        })
    }
}

/// Whether a match is about a protocol and port, as one number.
fn is_about(of: &Match, example: u32) -> bool {
    of.in_effect().iter().any(|(protocol, ports)| {
        *protocol == Protocol::ANY
            || ports.bounds().any(|(first, last)| {
                (query(*protocol, first)..=query(*protocol, last)).contains(&example)
            })
    })
}

/// The protocols and ports that a question is about.
fn asked_about(what: &Query) -> Vec<(u32, u32)> {
    let is_v4 = what.address.to_canonical().is_ipv4();
    let protocols = match what.protocol {
        Some(Proto::Icmp) if is_v4 => vec![Protocol::ICMP],
        Some(Proto::Icmp) => vec![Protocol::ICMPV6],
        Some(Proto::Number(number)) => vec![Protocol(number.into())],
        Some(Proto::Any) | None if what.port.is_some() => {
            crate::policy::protocol::WITH_PORTS.to_vec()
        }
        Some(Proto::Any) | None => return vec![(0, u32::MAX)],
    };
    protocols
        .into_iter()
        .map(|protocol| match what.port {
            Some(port) => (query(protocol, port), query(protocol, port)),
            None => (query(protocol, 0), query(protocol, u16::MAX)),
        })
        .collect()
}

#[cfg(test)]
mod tests;
