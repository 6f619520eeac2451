//! Explains the verdict on a destination, by the tree and the rules.

mod cases;
mod name;

use std::{collections::BTreeMap, net::IpAddr};

pub use cases::Case;
use cases::{boundaries, spell};
use ipnet::Ipv6Net;
pub use name::{Granted, InForce, NameExplanation, NamedAddress, NamedAddresses, explain_name};
use qfence_common::{
    Action, LookupPath, Nodes, Protocol, Verdict, tree::port_query, verdict::MONITOR,
};
use serde::Serialize;

use crate::policy::{
    Numbered, Prefix, Sets,
    grammar::Query,
    guard::Struck,
    hostset::single,
    nat64,
    protocol::Proto,
    rule::{Destination, Match, Rule},
    set::SetName,
};

/// QEMU's address of the host in the guest's network.
const HOST_OF_QEMU: &str = "10.0.2.2";

/// The exception for loopback.
const OWN_LOOPBACK: &str = "in a network namespace that a process of the fence has made (unshare -n), loopback is the \
    fence's own, and allowed whatever the rules are";

/// The exception for the services of a workload.
const POD: &str = "with --pod-loopback, services at this address in the workload's own network namespace are allowed, \
    whatever the rules are";

/// The policy that is asked.
pub struct Asked<'a, N> {
    /// Its rules.
    pub rules: &'a [Numbered],
    /// The members of the sets that it was compiled with.
    pub sets: &'a Sets,
    /// Its tree.
    pub nodes: &'a N,
    /// The addresses that rules by name allow now; empty if no fence is asked.
    pub named: &'a NamedAddresses,
    /// The addresses that were taken out of the latest answers, by name; empty if no fence is asked.
    pub struck: &'a BTreeMap<String, Vec<Struck>>,
    /// Whether the policy only monitors.
    pub monitors: bool,
}

/// The verdicts on one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The address; an IPv4 address if it was v4-mapped.
    pub address: IpAddr,
    /// The verdicts on calls, and on packets that leave through a device.
    pub by_address: Vec<Case>,
    /// The verdicts on packets that leave through the loopback device.
    pub through_loopback: Vec<Case>,
    /// Further advice.
    pub hint: Option<String>,
}

/// Explains one destination.
#[must_use]
pub fn explain<N: Nodes>(asked: &Asked<'_, N>, what: &Query) -> Explanation {
    let by_address = asked.cases(what, LookupPath::Address);
    let host = Destination::Set(SetName::Host);
    let of_self =
        hint_of_self(what, &by_address).filter(|_| asked.longest(&host, what.address).is_some());
    let hints: Vec<_> = hint(what.address, asked.sets)
        .into_iter()
        .chain(of_self)
        .collect();
    Explanation {
        address: what.address.to_canonical(),
        hint: (!hints.is_empty()).then(|| hints.join("; ")),
        by_address,
        through_loopback: asked.cases(what, LookupPath::Loopback),
    }
}

/// The rule by which a denied TCP port of the host would be allowed for a listener of the fence's own.
fn hint_of_self(what: &Query, cases: &[Case]) -> Option<String> {
    let port = what.port?;
    let is_denied = |case: &Case| case.verdict == "deny" && case.unless_self.is_none();
    let is_tcp = what
        .protocol
        .is_none_or(|of| of == Proto::TCP || of == Proto::Any);
    (is_tcp && cases.iter().any(is_denied))
        .then(|| format!("if the listener is made in the fence, --allow tcp:self:{port} allows it"))
}

fn hint(address: IpAddr, sets: &Sets) -> Option<String> {
    let canonical = address.to_canonical();
    if sets
        .pod
        .iter()
        .any(|prefix| prefix.contains(&single(canonical)))
    {
        return Some(POD.to_owned());
    }
    if canonical.is_loopback() || canonical.is_unspecified() {
        return Some(OWN_LOOPBACK.to_owned());
    }
    if canonical.to_string() == HOST_OF_QEMU {
        return Some(format!(
            "{HOST_OF_QEMU} in a guest of QEMU's user network is the host: there the fence sees \
             127.0.0.1 in its place"
        ));
    }
    let (translator, v4) = nat64::meaning(address, &sets.nat64)?;
    Some(format!(
        "{address} is {v4}, as a router spells it that translates to IPv4 under {translator} (NAT64)"
    ))
}

impl<N: Nodes> Asked<'_, N> {
    fn cases(&self, what: &Query, path: LookupPath) -> Vec<Case> {
        // The intervals in question, divided where the verdict changes.
        let all = boundaries(self.nodes, path, single(what.address).addr().octets());
        let all = match self.named.get(&what.address.to_canonical()) {
            Some(of) if path == LookupPath::Address => self.with_names(all, of),
            _ => all,
        };
        // By the rule that decides, and the rule for `self` before it.
        type Rules = (u32, Option<u32>);
        let mut by_rule: BTreeMap<Rules, (Verdict, Vec<(u32, u32)>)> = BTreeMap::new();
        let is_v4 = what.address.to_canonical().is_ipv4();
        for interval in asked_about(what.protocol, what.port, is_v4) {
            for (index, (from, verdict)) in all.iter().enumerate() {
                let to = all.get(index + 1).map_or(u32::MAX, |(next, _)| next - 1);
                let (first, last) = (interval.0.max(*from), interval.1.min(to));
                if first <= last {
                    let found = by_rule.entry((verdict.rule(), verdict.self_rule()));
                    let (_, intervals) = found.or_insert((*verdict, Vec::new()));
                    intervals.push((first, last));
                }
            }
        }
        let order = |number: u32| self.rules.iter().position(|rule| rule.number == number);
        let mut found: Vec<_> = by_rule.into_values().collect();
        found.sort_by_key(|(verdict, _)| (order(verdict.rule()), verdict.self_rule().is_none()));
        let count = found.len();
        found
            .into_iter()
            .enumerate()
            .map(|(index, (verdict, intervals))| Case {
                which: match (count, index + 1 == count) {
                    (1, _) => String::new(),
                    (_, true) => "the rest".to_owned(),
                    (_, false) => spell(&intervals),
                },
                ..self.case(path, what.address, verdict, intervals[0].0)
            })
            .collect()
    }

    /// Describes a verdict on an address; `example` is one of its protocols and ports.
    fn case(&self, path: LookupPath, address: IpAddr, verdict: Verdict, example: u32) -> Case {
        let numbered = self.rules.iter().find(|rule| rule.number == verdict.rule());
        let rule = numbered.map(|numbered| &numbered.rule);
        let own = verdict.self_rule().and_then(|number| {
            let numbered = self.rules.iter().find(|rule| rule.number == number)?;
            Some(numbered.rule.brief())
        });
        let member = rule.and_then(|rule| self.member(rule, example, path, address));
        Case {
            which: String::new(),
            verdict: match (verdict.action(), verdict.has(MONITOR)) {
                (Action::Allow, _) => "allow",
                (Action::Deny, true) => "monitored",
                (Action::Deny, false) => "deny",
            },
            rule: rule.map_or_else(|| "no policy".to_owned(), Rule::brief),
            source: rule.map(|rule| rule.source.to_string()),
            comment: rule.and_then(|rule| rule.comment.clone()),
            unless_self: own,
            set: member
                .as_ref()
                .map(|(destination, _)| destination.to_string()),
            member: member
                .and_then(|(_, member)| member)
                .map(|prefix| Destination::Prefix(prefix).to_string()),
        }
    }

    /// The destination of a rule that matches, and the member of that set that has the address. None if the match
    /// depends only on the path, or if the set is `internet`.
    fn member<'r>(
        &self,
        rule: &'r Rule,
        example: u32,
        path: LookupPath,
        address: IpAddr,
    ) -> Option<(&'r Destination, Option<Prefix>)> {
        let of_all = |destination| Some((destination, None));
        rule.matches.iter().find_map(|of| match &of.destination {
            _ if !is_about(of, example) => None,
            set @ Destination::Set(SetName::Host) if path == LookupPath::Loopback => of_all(set),
            set @ Destination::Set(SetName::Any) => of_all(set),
            name @ Destination::Name(pattern) => {
                let of = self.named.get(&address.to_canonical())?;
                let is_known = of.names.iter().any(|name| pattern.matches(name));
                is_known.then_some((name, None))
            }
            set @ Destination::Set(SetName::Internet) => SetName::NOT_INTERNET
                .iter()
                .all(|other| self.longest(&Destination::Set(*other), address).is_none())
                .then_some((set, None)),
            other => {
                let member = self.longest(other, address)?;
                Some((other, Some(member)))
            }
        })
    }

    /// The longest prefix of a destination that contains an address.
    fn longest(&self, destination: &Destination, address: IpAddr) -> Option<Prefix> {
        let members = self.sets.prefixes(destination).unwrap_or_default();
        let address = single(address);
        members
            .into_iter()
            .filter(|member| member.contains(&address))
            .max_by_key(Ipv6Net::prefix_len)
    }
}

/// Whether a match covers a protocol and port, which are one number here.
fn is_about(of: &Match, example: u32) -> bool {
    of.in_effect().iter().any(|(protocol, ports)| {
        *protocol == Protocol::ANY
            || ports.bounds().any(|(first, last)| {
                (port_query(*protocol, first)..=port_query(*protocol, last)).contains(&example)
            })
    })
}

/// The protocols and ports of a question, for an address of a family.
fn asked_about(protocol: Option<Proto>, port: Option<u16>, is_v4: bool) -> Vec<(u32, u32)> {
    let protocols = match protocol {
        Some(Proto::Icmp) if is_v4 => vec![Protocol::ICMP],
        Some(Proto::Icmp) => vec![Protocol::ICMPV6],
        Some(Proto::Number(number)) => vec![Protocol(number.into())],
        Some(Proto::Any) | None if port.is_some() => crate::policy::protocol::WITH_PORTS.to_vec(),
        Some(Proto::Any) | None => return vec![(0, u32::MAX)],
    };
    protocols
        .into_iter()
        .map(|protocol| match port {
            Some(port) => (port_query(protocol, port), port_query(protocol, port)),
            None => (port_query(protocol, 0), port_query(protocol, u16::MAX)),
        })
        .collect()
}

#[cfg(test)]
mod tests;
