//! Rules by name: the order of rules decides, and only the protocols and ports of a rule are allowed.

use proptest::prelude::*;
use qfence_common::{
    resolved::{GRANTS, Grant, decide_by_name},
    tree::port_query,
    verdict::NAMED,
};

use super::*;
use crate::{
    compile::named::{Lookups, Permission},
    policy::{Policy, domain::DomainName},
};

const HOSTS: [&str; 4] = ["192.0.2.10", "127.0.0.1", "255.255.255.255", "224.0.0.1"];

fn lookups(policy: &Policy) -> Lookups {
    Lookups::new(&policy.rules())
}

fn permission(policy: &Policy, name: &str) -> Permission {
    let name: DomainName = name.parse().unwrap();
    lookups(policy).permission(&name)
}

fn padded(grants: &[Grant]) -> [Grant; GRANTS] {
    let mut all = [Grant::NONE; GRANTS];
    all[..grants.len()].copy_from_slice(grants);
    all
}

/// The verdict on an address to which a name was resolved, as the kernel finds it.
fn decide_resolved(
    policy: &Policy,
    name: &str,
    address: &str,
    protocol: Protocol,
    port: u16,
) -> Verdict {
    let compiled = compile(&policy.rules(), &sets(""), policy.monitor).unwrap();
    let address = address.parse().unwrap();
    let verdict = compiled.decide(LookupPath::Address, protocol, address, port);
    if verdict.action() == Action::Allow || !verdict.has(NAMED) {
        return verdict;
    }
    let grants = padded(&permission(policy, name).grants);
    decide_by_name(&compiled, verdict, port_query(protocol, port), &grants)
}

/// The text of the rule that decides, and its action.
fn decided(rules: &[&str], name: &str, address: &str, port: u16) -> (Action, String) {
    let policy = testing::locked(rules);
    let verdict = decide_resolved(&policy, name, address, Protocol::TCP, port);
    let rules = policy.rules();
    let rule = rules.iter().find(|rule| rule.number == verdict.rule());
    (verdict.action(), rule.unwrap().rule.to_string())
}

#[test]
fn the_first_rule_decides_between_names_and_addresses() {
    let (one, other) = ("203.0.113.5", "203.0.112.5");
    let by_name = "allow tcp:github.com:443";
    let allowed = (Action::Allow, by_name.to_owned());
    assert_eq!(decided(&[by_name], "github.com", one, 443), allowed);
    assert_eq!(decided(&[by_name], "github.com", one, 22).0, Action::Deny);
    assert_eq!(decided(&[by_name], "example.org", one, 443).0, Action::Deny);

    let before = ["deny 203.0.113.0/24", by_name];
    assert_eq!(decided(&before, "github.com", one, 443).1, before[0]);
    assert_eq!(decided(&before, "github.com", other, 443), allowed);
    let after = [by_name, "deny 203.0.113.0/24"];
    assert_eq!(decided(&after, "github.com", one, 443), allowed);
    assert_eq!(decided(&after, "github.com", one, 80).1, after[1]);
}

#[test]
fn the_host_is_not_reached_by_a_name() {
    for address in HOSTS {
        let rules = ["allow *.example.org", "allow github.com"];
        for name in ["github.com", "a.example.org"] {
            assert_eq!(
                decided(&rules, name, address, 80).0,
                Action::Deny,
                "{address}"
            );
        }
    }
}

#[test]
fn through_the_loopback_device_no_name_is_allowed() {
    let policy = testing::locked(&["allow github.com"]);
    let compiled = compile(&policy.rules(), &sets(""), false).unwrap();
    let address = "203.0.113.5".parse().unwrap();
    let verdict = |path| compiled.decide(path, Protocol::TCP, address, 443);
    assert!(verdict(LookupPath::Address).has(NAMED));
    assert!(!verdict(LookupPath::Loopback).has(NAMED));
}

#[test]
fn a_policy_without_names_has_no_mark_of_them() {
    for (rules, is_named) in [
        (&["allow 192.0.2.1"][..], false),
        (&["deny example.org"], false),
    ] {
        let compiled = compile(&testing::locked(rules).rules(), &sets(""), false).unwrap();
        let verdict = compiled.decide(
            LookupPath::Address,
            Protocol::TCP,
            "203.0.113.5".parse().unwrap(),
            443,
        );
        assert_eq!(verdict.has(NAMED), is_named, "{rules:?}");
    }
}

#[test]
fn groups_keep_the_ports_of_names_apart() {
    let rule = "allow tcp:a.example.org:443 udp:b.example.org:123 tcp:c.example.org:443";
    let policy = testing::locked(&[rule]);
    let verdict = |name, protocol, port| {
        let verdict = decide_resolved(&policy, name, "203.0.113.5", protocol, port);
        verdict.action() == Action::Allow
    };
    for (name, tcp, udp) in [
        ("a.example.org", true, false),
        ("b.example.org", false, true),
        ("c.example.org", true, false),
        ("d.example.org", false, false),
    ] {
        assert_eq!(verdict(name, Protocol::TCP, 443), tcp, "{name}");
        assert_eq!(verdict(name, Protocol::UDP, 123), udp, "{name}");
        assert!(!verdict(name, Protocol::TCP, 123) && !verdict(name, Protocol::UDP, 443));
    }
    let of = |name| permission(&policy, name).grants;
    assert_eq!(of("a.example.org"), of("c.example.org"));
}

#[test]
fn a_look_up_is_allowed_by_the_first_rule_that_names_it() {
    let rules = [
        "allow api.github.com",
        "deny *.github.com",
        "allow github.com",
        "allow tcp:github.com:22",
    ];
    let policy = testing::locked(&rules);
    let numbers: Vec<u32> = policy.rules().iter().map(|rule| rule.number).collect();
    let of = |name| {
        let Permission {
            rule,
            is_allowed,
            grants,
        } = permission(&policy, name);
        (rule, is_allowed, grants.len())
    };
    assert_eq!(of("api.github.com"), (numbers[0], true, 1));
    assert_eq!(of("evil.github.com"), (numbers[1], false, 0));
    assert_eq!(of("github.com"), (numbers[2], true, 2));
    assert_eq!(of("example.org"), (*numbers.last().unwrap(), false, 0));
}

#[test]
fn names_without_a_rule_are_looked_up_if_the_policy_is_open() {
    for rules in [
        &["deny ads.example.org", "allow internet"][..],
        &["deny ads.example.org", "allow 0.0.0.0/0:443"],
        &["deny ads.example.org", "allow any"],
    ] {
        let policy = testing::locked(rules);
        let other = permission(&policy, "example.org");
        assert!(other.is_allowed && other.grants.is_empty(), "{rules:?}");
        assert!(!permission(&policy, "ads.example.org").is_allowed);
    }
}

#[test]
fn too_many_kinds_of_ports_in_a_rule_are_an_error() {
    let many = |count: u16| {
        let names = (1..=count).map(|port| format!("tcp:n{port}.example.org:{port}"));
        let rule = format!("allow {}", names.collect::<Vec<_>>().join(" "));
        compile(&testing::locked(&[&rule]).rules(), &sets(""), false)
    };
    assert!(many(62).is_ok());
    let error = many(63).unwrap_err().to_string();
    assert!(error.contains("63 pieces"), "{error}");
}

/// The first rule that matches, of rules about one name and one prefix, told by hand.
fn naive(rules: &[(bool, To, Option<u16>)], is_inside: bool, port: u16) -> bool {
    let is_of = |(_, to, ports): &&(bool, To, Option<u16>)| {
        let is_there = match to {
            To::Name => true,
            To::Prefix => is_inside,
        };
        is_there && ports.is_none_or(|only| only == port)
    };
    rules.iter().find(is_of).is_some_and(|(allow, ..)| *allow)
}

#[derive(Clone, Copy, Debug)]
enum To {
    Name,
    Prefix,
}

fn any_rule() -> impl Strategy<Value = (bool, To, Option<u16>)> {
    let port = prop_oneof![Just(None), (80..83u16).prop_map(Some)];
    prop_oneof![
        // A name is denied by its look-up, which is another test.
        port.clone().prop_map(|port| (true, To::Name, port)),
        (any::<bool>(), port).prop_map(|(allow, port)| (allow, To::Prefix, port)),
    ]
}

proptest! {
    #[test]
    fn names_and_addresses_are_decided_in_order(
        rules in prop::collection::vec(any_rule(), 0..7),
        is_inside in any::<bool>(),
        port in 80..83u16,
    ) {
        let texts: Vec<String> = rules
            .iter()
            .map(|(allow, to, port)| {
                let action = if *allow { "allow" } else { "deny" };
                let to = match to {
                    To::Name => "example.org",
                    To::Prefix => "203.0.113.0/24",
                };
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{action} {to}{port}")
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let address = if is_inside { "203.0.113.5" } else { "203.0.112.5" };
        let policy = testing::locked(&texts);
        let verdict = decide_resolved(&policy, "example.org", address, Protocol::TCP, port);
        prop_assert_eq!(verdict.action() == Action::Allow, naive(&rules, is_inside, port));
    }
}
