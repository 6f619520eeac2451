//! Rules and policies for tests.

use qfence_common::Action;

use super::{
    Dns, Policy,
    profile::Profile,
    rule::{Rule, Source},
};

/// Parses a rule written as `allow MATCH…` or `deny MATCH…`.
pub(crate) fn rule(text: &str) -> Rule {
    let mut words = text.split_whitespace();
    let action = match words.next() {
        Some("allow") => Action::Allow,
        Some("deny") => Action::Deny,
        other => panic!("{other:?} is no action"),
    };
    Rule {
        action,
        matches: words.map(|word| word.parse().unwrap()).collect(),
        comment: None,
        source: Source::Flag { text: text.into() },
    }
}

/// A policy of the profile `host` with these rules before it.
pub(crate) fn policy(rules: &[&str], monitor: bool) -> Policy {
    let profile = Profile::shipped("host").unwrap().into();
    let given = rules.iter().map(|text| rule(text)).collect();
    Policy::new(given, Dns::Auto, profile, None, monitor).unwrap()
}

/// A policy with these rules, which denies everything else.
pub(crate) fn locked(rules: &[&str]) -> Policy {
    let profile = Profile::shipped("locked").unwrap().into();
    let given = rules.iter().map(|text| rule(text)).collect();
    Policy::new(given, Dns::Deny, profile, None, false).unwrap()
}
