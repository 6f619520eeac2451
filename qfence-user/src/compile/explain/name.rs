//! Explains what a policy says of a name: of its look-up, and of connections to its addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use qfence_common::{
    Action, LookupPath, Nodes, Verdict,
    resolved::{GRANTS, Grant, decide_by_name},
    verdict::NAMED,
};
use serde::Serialize;

use super::{
    Asked, asked_about,
    cases::{Case, spell},
};
use crate::{
    compile::{
        named::{Lookups, group},
        ports::{EVERYTHING, intervals},
    },
    policy::{domain::DomainName, grammar::Query, guard::Struck, protocol::Proto, rule::Rule},
};

/// What a policy says of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameExplanation {
    /// The name, as it is looked up.
    pub name: String,
    /// The verdict on the look-up: `allow`; `deny`, which is answered as if the name did not exist; or `monitored`: it is
    /// answered, and logged as one that would be denied.
    pub lookup: &'static str,
    /// The rule that decides on the look-up.
    pub rule: String,
    /// The source of that rule.
    pub source: String,
    /// The verdict on a connection to the name's addresses: `allow` if rules by name allow all that is asked about, at each
    /// address that no earlier rule denies; `by-address` if the other rules decide; `deny` if there is no address.
    pub connection: &'static str,
    /// What rules allow at the name's addresses.
    pub granted: Vec<Granted>,
    /// The addresses that are in force for the name; empty if no fence was asked.
    pub addresses: Vec<InForce>,
    /// The addresses that were taken out of its latest answers, and the set because of which.
    pub struck: Vec<Struck>,
}

/// Protocols and ports that a rule allows at the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// The protocols and ports; empty for all.
    pub which: String,
    /// The rule.
    pub rule: String,
    /// Its source.
    pub source: String,
    /// The name in the rule that matches.
    pub by: String,
}

/// An address that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// The address.
    pub address: IpAddr,
    /// For how many seconds more, if it is not used.
    pub seconds: u64,
    /// The verdicts of all rules on it.
    pub by_address: Vec<Case>,
}

/// An address that rules by name allow now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddress {
    /// What it is allowed for.
    pub grants: [Grant; GRANTS],
    /// The names that led there.
    pub names: Vec<DomainName>,
    /// For how many seconds more, if it is not used.
    pub seconds: u64,
}

/// The addresses that rules by name allow now.
pub type NamedAddresses = BTreeMap<IpAddr, NamedAddress>;

impl<N: Nodes> Asked<'_, N> {
    /// The verdicts on an address, with those by its names. Each has its first protocol and port, as in `all`.
    pub(super) fn with_names(
        &self,
        all: Vec<(u32, Verdict)>,
        of: &NamedAddress,
    ) -> Vec<(u32, Verdict)> {
        let grants = of.grants.iter().take_while(|grant| **grant != Grant::NONE);
        let intervals = grants.flat_map(|grant| group(self.rules, *grant));
        let bounds = intervals.flat_map(|(first, last)| [Some(first), last.checked_add(1)]);
        let starts = all.iter().map(|(start, _)| *start);
        let starts: BTreeSet<u32> = starts.chain(bounds.flatten()).collect();
        let by_tree: BTreeMap<u32, Verdict> = all.into_iter().collect();
        let verdict = |start: u32| {
            let (_, verdict) = by_tree.range(..=start).next_back()?;
            let is_open = verdict.action() == Action::Deny && verdict.has(NAMED);
            Some(match is_open {
                true => decide_by_name(self.nodes, *verdict, start, &of.grants),
                false => *verdict,
            })
        };
        let mut pieces: Vec<(u32, Verdict)> = starts
            .into_iter()
            .filter_map(|start| Some((start, verdict(start)?)))
            .collect();
        pieces.dedup_by_key(|(_, verdict)| *verdict);
        pieces
    }
}

/// Explains a name, for a protocol and port if they are given.
#[must_use]
pub fn explain_name<N: Nodes>(
    of: &Asked<'_, N>,
    name: &DomainName,
    protocol: Option<Proto>,
    port: Option<u16>,
) -> NameExplanation {
    let rules = of.rules;
    let permission = Lookups::new(rules).permission(name);
    let deciding = rules.iter().find(|rule| rule.number == permission.rule);
    let granting = rules.iter().filter(|numbered| {
        let mut grants = permission.grants.iter();
        grants.any(|grant| grant.rule() == numbered.number)
    });
    let matches: Vec<_> = granting
        .flat_map(|numbered| {
            let of_name = numbered.rule.matches.iter();
            let of_name = of_name.filter_map(|one| {
                let pattern = one.pattern().filter(|pattern| pattern.matches(name))?;
                Some((&numbered.rule, pattern, intervals(one)))
            });
            of_name.collect::<Vec<_>>()
        })
        .collect();
    let mut asked = [true, false]
        .into_iter()
        .flat_map(|is_v4| asked_about(protocol, port, is_v4));
    let is_granted = |(first, last): (u32, u32)| {
        let mut all = matches.iter().flat_map(|(_, _, intervals)| intervals);
        all.any(|(from, to)| *from <= first && last <= *to)
    };
    NameExplanation {
        name: name.to_string(),
        lookup: match (permission.is_allowed, of.monitors) {
            (true, _) => "allow",
            (false, true) => "monitored",
            (false, false) => "deny",
        },
        rule: deciding.map_or_else(|| "no policy".to_owned(), |rule| rule.rule.brief()),
        source: deciding
            .map(|rule| rule.rule.source.to_string())
            .unwrap_or_default(),
        connection: match permission.is_allowed || of.monitors {
            true if !matches.is_empty() && asked.all(is_granted) => "allow",
            true => "by-address",
            false => "deny",
        },
        granted: matches
            .iter()
            .map(|(rule, pattern, intervals)| Granted {
                which: if intervals[..] == EVERYTHING {
                    String::new()
                } else {
                    spell(intervals)
                },
                rule: Rule::brief(rule),
                source: rule.source.to_string(),
                by: pattern.to_string(),
            })
            .collect(),
        struck: of.struck.get(name.as_str()).cloned().unwrap_or_default(),
        addresses: of
            .named
            .iter()
            .filter(|(_, named)| named.names.contains(name))
            .map(|(&address, named)| InForce {
                address,
                seconds: named.seconds,
                by_address: of.cases(
                    &Query {
                        protocol,
                        address,
                        port,
                    },
                    LookupPath::Address,
                ),
            })
            .collect(),
    }
}
