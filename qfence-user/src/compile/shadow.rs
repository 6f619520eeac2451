//! Finds rules that can never match, because earlier rules match everything that they match.

use std::collections::BTreeSet;

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
    /// The earlier rules that match everything that it matches, as text: `--deny lan matches it all`.
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
    for (index, numbered) in rules.iter().enumerate() {
        let of_names = numbered
            .rule
            .matches
            .iter()
            .filter(|of| of.pattern().is_some());
        let covering: Vec<_> = of_names.map(|of| covering(&rules[..index], of)).collect();
        if covering.iter().any(Option::is_none) {
            decide.insert(index);
        }
        before[index].extend(covering.into_iter().flatten());
        decide.extend(
            before[index]
                .iter()
                .filter(|before| has_name(&rules[**before].rule)),
        );
    }
    let shadowed = rules
        .iter()
        .enumerate()
        .filter(|(index, numbered)| !decide.contains(index) && is_looked_at(&numbered.rule))
        .map(|(index, numbered)| Shadowed {
            index,
            rule: numbered.rule.clone(),
            by: name(&rules, before[index].intersection(&decide)),
        });
    Ok(shadowed.collect())
}

/// Whether a match of `internet` depends on the translators (NAT64) of the host's network: an address of theirs can be one
/// of a LAN, which is not in the set. As with `self`, whose matches depend on the listener, later rules can match as well.
fn may_be_translated(of: &Match, prefix: Prefix) -> bool {
    of.destination == Destination::Set(SetName::Internet) && !V4.contains(&prefix)
}

/// The index of the rule that matches all that a match by name does.
fn covering(earlier: &[Numbered], of: &Match) -> Option<usize> {
    let pattern = of.pattern()?;
    let covers = |other: &Match| {
        let is_covered = |(first, last): &(u32, u32)| {
            let mut all = ports::intervals(other).into_iter();
            all.any(|(from, to)| from <= *first && *last <= to)
        };
        let has_all = match &other.destination {
            Destination::Set(set) => *set == SetName::Any,
            Destination::Name(other) => other.covers(pattern),
            Destination::Prefix(_) => false,
        };
        has_all && ports::intervals(of).iter().all(is_covered)
    };
    let is_covering = |numbered: &Numbered| numbered.rule.matches.iter().any(covers);
    earlier.iter().position(is_covering)
}

fn has_name(rule: &Rule) -> bool {
    rule.matches.iter().any(|of| of.pattern().is_some())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing;

    fn shadowed(rules: &[&str]) -> Vec<String> {
        let found = find(&testing::policy(rules, false)).unwrap();
        found
            .into_iter()
            .map(|Shadowed { rule, by, .. }| format!("{rule}: {by}"))
            .collect()
    }

    #[test]
    fn a_rule_within_one_before_it_can_never_match() {
        assert_eq!(
            shadowed(&["deny lan", "allow 10.1.2.3"]),
            ["allow 10.1.2.3: `deny lan` matches everything that it matches"]
        );
        assert_eq!(
            shadowed(&["deny tcp:any:1-100", "deny udp:any", "allow any:53"]),
            [""; 0],
            "SCTP has ports too"
        );
        assert_eq!(shadowed(&["deny host", "allow tcp:host:80"]).len(), 1);
        assert_eq!(shadowed(&["deny any", "allow dns", "allow host"]).len(), 2);
    }

    #[test]
    fn several_rules_together_can_have_it_all() {
        assert_eq!(
            shadowed(&[
                "deny tcp:10.0.0.0/8:1-100",
                "deny tcp:10.0.0.0/8:101-200",
                "allow tcp:10.1.0.0/16:80-150"
            ]),
            [
                "allow tcp:10.1.0.0/16:80-150: `deny tcp:10.0.0.0/8:1-100` and `deny tcp:10.0.0.0/8:101-200` match \
                 everything that it matches"
            ]
        );
    }

    #[test]
    fn what_depends_on_the_host_is_no_ground() {
        for rules in [
            &["deny host", "allow 192.0.2.7"][..],
            &["deny lan", "allow dns"],
            &["allow dns", "deny lan", "deny gateway"],
            &["allow gateway:53", "deny dns"],
            &["allow dns", "deny lan"],
            &["deny lan", "allow host:80"],
            &["allow 10.1.2.3", "deny lan"],
            &["deny internet", "allow any"],
            // Networks for documentation and for discarding, as in lists of bogus networks.
            &[
                "deny 192.0.2.0/24",
                "deny 100::/64",
                "allow dns",
                "allow host:80",
            ],
        ] {
            assert_eq!(shadowed(rules), [""; 0], "{rules:?}");
        }
    }

    #[test]
    fn what_a_translator_may_translate_is_not_surely_internet() {
        let rules = |last| ["deny internet", "deny host", last];
        // An address of a translator's can be one of a LAN.
        assert_eq!(shadowed(&rules("allow [2000::/3]")), [""; 0]);
        assert_eq!(shadowed(&rules("allow 8.0.0.0/8")).len(), 1);
    }

    #[test]
    fn a_name_is_hidden_by_the_same_name_alone() {
        for rules in [
            &["deny lan", "allow github.com"][..],
            &["allow github.com", "allow api.github.com"],
            &["allow *.github.com", "allow github.com"],
            &["allow tcp:github.com:443", "allow github.com"],
            &["allow github.com", "allow github.com lan"],
        ] {
            assert_eq!(shadowed(rules), [""; 0], "{rules:?}");
        }
        assert_eq!(
            shadowed(&["deny github.com", "allow tcp:github.com:443"]),
            ["allow tcp:github.com:443: `deny github.com` matches everything that it matches"]
        );
        for rules in [
            ["allow *.github.com", "deny a.b.github.com"],
            ["allow *.github.com", "deny *.b.github.com"],
            ["allow tcp:github.com:80,443", "allow tcp:github.com:443"],
            ["deny any", "allow github.com"],
        ] {
            assert_eq!(shadowed(&rules).len(), 1, "{rules:?}");
        }
    }

    #[test]
    fn both_families_alike() {
        assert_eq!(shadowed(&["deny fc00::/7", "allow fd00::1"]).len(), 1);
        assert_eq!(shadowed(&["deny ::/0", "allow fd00::1"]).len(), 1);
        assert_eq!(shadowed(&["deny 0.0.0.0/0", "allow 10.0.0.1"]).len(), 1);
        assert_eq!(shadowed(&["deny ::/0", "allow 10.0.0.1"]).len(), 0);
    }
}
