//! Finds the rules that contain each prefix.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::Ipv6Net;
use qfence_common::LookupPath;

use crate::policy::{
    Numbered, Prefix, Sets,
    rule::{Destination, V4},
    set::SetName,
};

/// A match, by the index of its rule in the policy and its own index in the rule. Matches are tried in this order.
pub(super) type Which = (usize, usize);

/// The destinations of one path, and the matches that name them.
pub(super) struct Membership {
    /// For each prefix, the destinations that have it as a member.
    members: BTreeMap<Prefix, Vec<usize>>,
    /// For each destination, the matches that name it.
    named_by: Vec<Vec<Which>>,
    host: usize,
    many: usize,
    pod: usize,
    /// The IPv6 destinations whose prefix contains the IPv4 range, which they do not match.
    v6_alone: BTreeSet<usize>,
    /// The matches that name `self`: they have each prefix of the host, except those with many receivers.
    of_self: Vec<Which>,
    /// For `internet`: the matches that name it, and the destinations that it excludes. `None` on the loopback path.
    internet: Option<(Vec<Which>, BTreeSet<usize>)>,
}

/// A prefix, its sets, and the rules that match it.
pub(super) struct PrefixRules<'a> {
    pub(super) prefix: Prefix,
    pub(super) is_host: bool,
    pub(super) is_many: bool,
    /// Whether it is in the workload's own network namespace, whose services are allowed.
    pub(super) is_pod: bool,
    /// The matches that contain it, in the order in which they are tried.
    pub(super) matches: &'a [Which],
}

impl Membership {
    pub(super) fn new(rules: &[Numbered], sets: &Sets, path: LookupPath) -> Self {
        let everything = BTreeSet::from([Ipv6Net::default()]);
        let host = match path {
            LookupPath::Address => sets.members(SetName::Host).unwrap_or_default(),
            LookupPath::Loopback => everything.clone(),
        };
        // There, all that leaves through the loopback device is in it.
        let pod = match path {
            LookupPath::Loopback if !sets.pod.is_empty() => everything,
            _ => sets.pod.clone(),
        };
        let mut new = Self {
            members: BTreeMap::from([(Ipv6Net::default(), Vec::new())]),
            named_by: Vec::new(),
            host: 0,
            many: 0,
            pod: 0,
            v6_alone: BTreeSet::new(),
            of_self: Vec::new(),
            internet: None,
        };
        let mut known = HashMap::new();
        new.host = new.add(host);
        known.insert(Destination::Set(SetName::Host), new.host);
        new.many = new.add(sets.many.iter().copied());
        new.pod = new.add(pod);
        let mut internet = Vec::new();

        let mut destination = |new: &mut Self, destination: Destination| {
            *known
                .entry(destination)
                .or_insert_with_key(|destination| match destination {
                    Destination::Prefix(prefix) if *prefix != V4 && prefix.contains(&V4) => {
                        new.add_v6_alone(*prefix)
                    }
                    _ => new.add(sets.prefixes(destination).unwrap_or_default()),
                })
        };
        for (rule, numbered) in rules.iter().enumerate() {
            for (index, of) in numbered.rule.matches.iter().enumerate() {
                if of.destination == Destination::Set(SetName::Internet) {
                    internet.push((rule, index));
                } else if of.is_self() {
                    new.of_self.push((rule, index));
                } else if of.pattern().is_none() {
                    let known = destination(&mut new, of.destination.clone());
                    new.named_by[known].push((rule, index));
                }
            }
        }
        if path == LookupPath::Address && !internet.is_empty() {
            let without = SetName::NOT_INTERNET
                .map(|set| destination(&mut new, Destination::Set(set)))
                .into();
            new.internet = Some((internet, without));
        }
        new
    }

    /// Adds a destination.
    fn add(&mut self, members: impl IntoIterator<Item = Prefix>) -> usize {
        let destination = self.named_by.len();
        for prefix in members {
            self.members.entry(prefix).or_default().push(destination);
        }
        self.named_by.push(Vec::new());
        destination
    }

    /// Adds an IPv6 prefix that contains the IPv4 range, without that range. Expressed as prefixes, the difference
    /// would be up to 96 nested ones, and every IPv4 address would be below all of them.
    fn add_v6_alone(&mut self, prefix: Prefix) -> usize {
        let destination = self.add([prefix]);
        self.v6_alone.insert(destination);
        self.members.entry(V4).or_default();
        destination
    }

    /// Visits all prefixes in order, each after those that contain it.
    pub(super) fn try_for_each_prefix<E>(
        &self,
        mut visit: impl FnMut(&PrefixRules<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // The destinations that contain the current prefix. For each prefix around it, their number before that
        // prefix.
        let mut holding: Vec<usize> = Vec::new();
        let mut way: Vec<(Prefix, usize)> = Vec::new();
        let mut matches = Vec::new();
        for (&prefix, destinations) in &self.members {
            while let Some((outer, before)) = way.last()
                && !outer.contains(&prefix)
            {
                holding.truncate(*before);
                way.pop();
            }
            way.push((prefix, holding.len()));
            holding.extend(destinations);

            matches.clear();
            let is_v4 = V4.contains(&prefix);
            let here = holding
                .iter()
                .filter(|at| !is_v4 || !self.v6_alone.contains(at));
            matches.extend(here.flat_map(|&at| &self.named_by[at]));
            if let Some((named_by, without)) = &self.internet
                && !holding.iter().any(|at| without.contains(at))
            {
                matches.extend(named_by);
            }
            let is_host = holding.contains(&self.host);
            let is_many = holding.contains(&self.many);
            if is_host && !is_many {
                matches.extend(&self.of_self);
            }
            matches.sort_unstable();
            // A set can contain a prefix and another one within it.
            matches.dedup();
            visit(&PrefixRules {
                prefix,
                is_host,
                is_many,
                is_pod: holding.contains(&self.pod),
                matches: &matches,
            })?;
        }
        Ok(())
    }
}
