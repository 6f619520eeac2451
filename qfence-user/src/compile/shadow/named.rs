//! Finds rules by name that can never match.
//!
//! A rule that denies a name refuses its look-up, whatever its ports are, and nothing else: connections are judged by
//! address. So it is hidden by earlier rules by name alone, and an earlier rule for all addresses does not hide it.

use qfence_common::Action;

use crate::{
    compile::ports,
    policy::{
        Numbered,
        domain::DomainPattern,
        rule::{Destination, Match, Rule},
        set::SetName,
    },
};

/// Whether the names of a rule are hidden by earlier rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// The rule has no names.
    NoNames,
    /// Some are not.
    No,
    /// All are, by these rules.
    By(Vec<usize>),
    /// The rule denies look-ups, and this rule allows them.
    LookedUp(usize),
}

/// Whether the names of the rule at `index` are hidden.
pub(super) fn hidden(rules: &[Numbered], index: usize) -> Hidden {
    let rule = &rules[index].rule;
    let named: Vec<_> = rule
        .matches
        .iter()
        .filter_map(|of| Some((of, of.pattern()?)))
        .collect();
    if named.is_empty() {
        return Hidden::NoNames;
    }
    let covering = named.iter().map(|(of, pattern)| match rule.action {
        Action::Allow => covering(&rules[..index], of, pattern),
        Action::Deny => deciding(rules, index, pattern),
    });
    let Some(covering) = covering.collect::<Option<Vec<_>>>() else {
        return Hidden::No;
    };
    let allowing = covering
        .iter()
        .find(|earlier| rules[**earlier].rule.action == Action::Allow);
    match allowing {
        Some(earlier) if rule.action == Action::Deny => Hidden::LookedUp(*earlier),
        _ => Hidden::By(covering),
    }
}

/// Whether a rule has a name.
pub(super) fn has_name(rule: &Rule) -> bool {
    rule.matches.iter().any(|of| of.pattern().is_some())
}

/// The earlier rule that matches all that a match of a rule that allows a name does: for all its ports, or because it refuses
/// the look-up.
fn covering(earlier: &[Numbered], of: &Match, pattern: &DomainPattern) -> Option<usize> {
    let covers = |other: &Match, denies: bool| {
        let is_covered = |(first, last): &(u32, u32)| {
            let mut all = ports::intervals(other).into_iter();
            all.any(|(from, to)| from <= *first && *last <= to)
        };
        let has_ports = || ports::intervals(of).iter().all(is_covered);
        match &other.destination {
            Destination::Set(set) => *set == SetName::Any && has_ports(),
            Destination::Name(other) => other.covers(pattern) && (denies || has_ports()),
            Destination::Prefix(_) => false,
        }
    };
    earlier.iter().position(|numbered| {
        let denies = numbered.rule.action == Action::Deny;
        let mut matches = numbered.rule.matches.iter();
        matches.any(|other| covers(other, denies))
    })
}

/// The earlier rule that decides on every look-up that the rule at `index` denies by this name. None if the rule denies what a
/// later one would allow.
fn deciding(rules: &[Numbered], index: usize, pattern: &DomainPattern) -> Option<usize> {
    let covers = |numbered: &Numbered| patterns(&numbered.rule).any(|other| other.covers(pattern));
    let earlier = rules[..index].iter().position(covers)?;
    let is_denied = rules[earlier].rule.action == Action::Deny;
    let is_allowed_later = rules[index + 1..].iter().any(|numbered| {
        numbered.rule.action == Action::Allow
            && patterns(&numbered.rule).any(|other| other.covers(pattern) || pattern.covers(other))
    });
    (is_denied || !is_allowed_later).then_some(earlier)
}

fn patterns(rule: &Rule) -> impl Iterator<Item = &DomainPattern> {
    rule.matches.iter().filter_map(Match::pattern)
}
