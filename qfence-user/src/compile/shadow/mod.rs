//! Finds rules that can never match, because earlier rules match everything that they match.

mod named;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use named::Hidden;
use qfence_common::LookupPath;

use super::{
    DoesNotFit,
    membership::Membership,
    ports::{self, Open},
};
use crate::policy::{
    Numbered, Policy, Prefix, Sets,
    hostset::{host_set, many_set},
    rule::{Destination, Match, Rule, V4},
    set::SetName,
};

/// A rule that can never match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Its index in the policy.
    pub index: usize,
    /// The rule.
    pub rule: Rule,
    /// The earlier rules because of which it cannot, as text: `` `deny lan` matches everything that it matches ``.
    pub by: String,
}

/// Finds the rules that can never match, whatever the host's addresses and nameservers are. Defaults and rules of
/// shipped profiles are skipped: they are meant to be overridden.
///
/// # Errors
/// As [`super::compile`].
pub fn find(policy: &Policy) -> Result<Vec<Shadowed>, DoesNotFit> {
    let rules = policy.rules();
    let mut decide = BTreeSet::new();
    // For each rule the earlier ones, for the smallest host that the rule can match at all.
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); rules.len()];
    for sets in extremes() {
        let mut earlier_here: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); rules.len()];
        for path in LookupPath::ALL {
            Membership::new(&rules, &sets, path).try_for_each_prefix(|of_prefix| {
                let mut open = Open::everything();
                for (index, &(rule, of)) in of_prefix.matches.iter().enumerate() {
                    let mut decides = false;
                    let of = &rules[rule].rule.matches[of];
                    let depends = of.is_self() || may_be_translated(of, of_prefix.prefix);
                    let mut without = depends.then(|| open.clone());
                    for interval in ports::intervals(of) {
                        let open = without.as_mut().unwrap_or(&mut open);
                        open.take(interval, |_| decides = true);
                    }
                    if decides {
                        decide.insert(rule);
                    } else {
                        let earlier = of_prefix.matches[..index]
                            .iter()
                            .map(|&(earlier, _)| earlier);
                        earlier_here[rule].extend(earlier.filter(|earlier| *earlier != rule));
                    }
                }
                Ok(())
            })?;
        }
        for (before, here) in before.iter_mut().zip(earlier_here) {
            if before.is_empty() {
                *before = here;
            }
        }
    }
    let mut lookups: Vec<Option<usize>> = vec![None; rules.len()];
    for index in 0..rules.len() {
        match named::hidden(&rules, index) {
            Hidden::No => {
                decide.insert(index);
            }
            Hidden::By(covering) => before[index].extend(covering),
            Hidden::LookedUp(earlier) => lookups[index] = Some(earlier),
            Hidden::NoNames => {}
        }
        decide.extend(
            before[index]
                .iter()
                .filter(|before| named::has_name(&rules[**before].rule)),
        );
    }
    let shadowed = rules
        .iter()
        .enumerate()
        .filter(|(index, numbered)| !decide.contains(index) && is_looked_at(&numbered.rule))
        .map(|(index, numbered)| Shadowed {
            index,
            rule: numbered.rule.clone(),
            by: match lookups[index] {
                Some(earlier) => format!(
                    "`{}` allows the look-up of every name that it denies",
                    rules[earlier].rule.brief()
                ),
                None => name(&rules, before[index].intersection(&decide)),
            },
        });
    Ok(shadowed.collect())
}

/// Whether a match of `internet` depends on the translators (NAT64) of the host's network: an address of theirs can be one
/// of a LAN, which is not in the set. As with `self`, whose matches depend on the listener, later rules can match as well.
fn may_be_translated(of: &Match, prefix: Prefix) -> bool {
    of.destination == Destination::Set(SetName::Internet) && !V4.contains(&prefix)
}

fn is_looked_at(rule: &Rule) -> bool {
    !rule.source.is_default() && !rule.source.is_shipped()
}

/// Sets for extreme hosts, from the smallest host to the greatest. Each address may or may not be the host, and a
/// nameserver or a gateway; one of these sets has each combination that matters.
fn extremes() -> Vec<Sets> {
    let everything = BTreeSet::from([Prefix::default()]);
    let nothing = BTreeSet::new();
    let least = host_set([]);
    let mut all = Vec::new();
    for host in [&least, &everything] {
        for nameservers in [&nothing, &everything] {
            for gateways in [&nothing, &everything] {
                all.push(Sets {
                    host: host.clone(),
                    many: many_set([]),
                    nameservers: nameservers.clone(),
                    gateways: gateways.clone(),
                    ..Sets::default()
                });
            }
        }
    }
    all
}

fn name<'a>(rules: &[Numbered], earlier: impl Iterator<Item = &'a usize>) -> String {
    let names: Vec<String> = earlier
        .map(|&index| format!("`{}`", rules[index].rule.brief()))
        .collect();
    match &names[..] {
        [one] => format!("{one} matches everything that it matches"),
        many => format!("{} match everything that it matches", many.join(" and ")),
    }
}
