//! Random policies on random hosts: the compiled policy decides like the rules one by one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is tests")]

mod naive;
mod pool;
mod scene;

use std::env;

use naive::{first_for_own, first_match};
use proptest::prelude::*;
use qfence_common::{
    Action, LookupPath, Protocol, Verdict,
    resolved::{GRANTS, Grant, decide_by_name},
    tree::port_query,
    verdict::{HOST, MANY, NAMED},
};
use qfence_user::{
    compile::{Compiled, compile, named::Lookups, shadow},
    policy::Numbered,
};
use scene::{Choice, Scene, action, choices, grants, scene};

/// How many policies are tried, unless the variable sets another number.
const POLICIES: (&str, u32) = ("QFENCE_PARITY_POLICIES", 600);
/// How many destinations are tried for each policy.
const DESTINATIONS: usize = 200;

/// Protocols with and without ports, one that no rule names, and MPTCP.
const PROTOCOLS: [u32; 12] = [6, 17, 6, 17, 132, 33, 136, 1, 58, 47, 255, 262];

fn config() -> ProptestConfig {
    let (variable, default) = POLICIES;
    let cases = env::var(variable).map_or(default, |text| text.parse().unwrap());
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The rules with numbers in descending order, since the order of rules does not depend on numbers.
fn numbered(scene: &Scene) -> Vec<Numbered> {
    let mut rules = scene.policy().rules();
    let numbers: Vec<u32> = rules.iter().map(|rule| 1000 - rule.number).collect();
    for (rule, number) in rules.iter_mut().zip(numbers) {
        rule.number = number;
    }
    rules
}

fn targets(scene: &Scene, choices: &[Choice]) -> Vec<naive::Target> {
    let (addresses, ports) = (scene.addresses(), scene.ports());
    let target = |choice| scene.target(choice, &addresses, &ports);
    choices.iter().map(target).collect()
}

/// The verdict on a destination with these grants, for which the tree has this one.
fn by_names(
    compiled: &Compiled,
    verdict: Verdict,
    target: &naive::Target,
    grants: &[Grant],
) -> Verdict {
    let is_denied = verdict.action() == Action::Deny && verdict.has(NAMED);
    if !is_denied || verdict.has(HOST) || verdict.has(MANY) || target.loopback {
        return verdict;
    }
    let port = port_query(Protocol(target.protocol), target.port);
    let mut all = [Grant::NONE; GRANTS];
    all[..grants.len()].copy_from_slice(grants);
    decide_by_name(compiled, verdict, port, &all)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_compiled_decides_as_the_first_rule_that_matches(
        scene in scene(),
        choices in choices(DESTINATIONS, &PROTOCOLS),
    ) {
        let rules = numbered(&scene);
        let compiled = compile(&rules, &scene.sets(), false).unwrap();
        let lookups = Lookups::new(&rules);
        for mut target in targets(&scene, &choices) {
            let grants = grants(&lookups, &mut target);
            let first = first_match(&scene.rules, &scene.host, &target).unwrap();
            let expected = (action(scene.rules[first].allow), rules[first].number);
            let path = if target.loopback { LookupPath::Loopback } else { LookupPath::Address };
            let protocol = Protocol(target.protocol);
            let decided = compiled.decide(path, protocol, target.address, target.port);
            let for_own = first_for_own(&scene.rules, &scene.host, &target);
            let for_own = for_own.map(|first| rules[first].number);
            prop_assert_eq!(decided.self_rule(), for_own, "{:?}, a listener of its own", target);
            let decided = by_names(&compiled, decided, &target, &grants);
            let decided = (decided.action(), decided.rule());
            prop_assert_eq!(decided, expected, "{:?} by `{}`", target, rules[first].rule);
        }
    }

    #[test]
    fn a_rule_that_is_called_shadowed_never_decides(
        scene in scene(),
        choices in choices(DESTINATIONS, &PROTOCOLS),
    ) {
        let shadowed = shadow::find(&scene.policy()).unwrap();
        let rules = numbered(&scene);
        for target in targets(&scene, &choices) {
            let first = first_match(&scene.rules, &scene.host, &target).unwrap();
            for first in [first].into_iter().chain(first_for_own(&scene.rules, &scene.host, &target)) {
                let decides = &rules[first].rule;
                let is_shadowed = shadowed.iter().any(|of| of.rule == *decides);
                prop_assert!(!is_shadowed, "`{}` decides on {:?}", decides, target);
            }
        }
    }
}
