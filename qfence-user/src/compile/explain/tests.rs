use std::collections::BTreeSet;

use qfence_common::resolved::{GRANTS, Grant};

use super::*;
use crate::{
    compile::{Compiled, compile, named::Lookups},
    policy::{
        grammar::{Question, destination},
        hostset::{host_set, many_set},
        nameservers, testing,
    },
};

fn sets() -> Sets {
    let own = ["192.0.2.10", "2001:db8::10"].map(|text| single(text.parse().unwrap()));
    Sets {
        host: host_set(own),
        many: many_set([]),
        nameservers: nameservers::parse(b"nameserver 127.0.0.53"),
        ..Sets::default()
    }
}

fn told(cases: &[Case]) -> Vec<String> {
    let line = |case: &Case| {
        let Case {
            which,
            verdict,
            rule,
            set,
            member,
            ..
        } = case;
        let set = set.as_deref().unwrap_or("-");
        let member = member.as_deref().unwrap_or("-");
        format!("{which}|{verdict}|{rule}|{set}|{member}")
    };
    cases.iter().map(line).collect()
}

fn ask(rules: &[&str], monitor: bool, what: &str) -> Explanation {
    let policy = testing::policy(rules, monitor);
    let (rules, sets) = (policy.rules(), sets());
    let compiled: Compiled = compile(&rules, &sets, monitor).unwrap();
    let asked = Asked {
        rules: &rules,
        sets: &sets,
        nodes: &compiled,
        named: &NamedAddresses::new(),
        struck: &BTreeMap::new(),
        monitors: monitor,
    };
    match destination(what).unwrap() {
        Question::Address(query) => explain(&asked, &query),
        Question::Name { .. } => panic!("{what} is a name"),
    }
}

#[test]
fn a_question_about_one_port_has_one_answer() {
    for (address, member) in [
        ("192.0.2.10", "192.0.2.10"),
        ("[2001:db8::10]", "[2001:db8::10]"),
    ] {
        let explained = ask(&["allow tcp:host:80"], false, &format!("tcp:{address}:80"));
        assert_eq!(
            told(&explained.by_address),
            [format!("|allow|allow tcp:host:80|host|{member}")]
        );
        assert_eq!(
            told(&explained.through_loopback),
            ["|allow|allow tcp:host:80|host|-"]
        );
        let explained = ask(&["allow tcp:host:80"], false, &format!("tcp:{address}:81"));
        assert_eq!(
            told(&explained.by_address),
            [format!("|deny|deny host|host|{member}")]
        );
    }
}

#[test]
fn a_verdict_that_depends_on_the_port_is_told_in_cases() {
    let explained = ask(&["allow tcp:host:80,443-445"], false, "127.0.0.53");
    assert_eq!(
        told(&explained.by_address),
        [
            "tcp 80,443-445|allow|allow tcp:host:80,443-445|host|127.0.0.0/8",
            "tcp 53; udp 53|allow|allow dns|dns|127.0.0.53",
            "the rest|deny|deny host|host|127.0.0.0/8",
        ]
    );
    let explained = ask(&[], false, "udp:127.0.0.53");
    assert_eq!(told(&explained.by_address).len(), 2);
}

#[test]
fn the_layers_can_differ() {
    for address in ["1.1.1.1", "2001:db8:1::1"] {
        let explained = ask(&[], false, address);
        assert!(told(&explained.by_address)[0].starts_with("|allow|allow any|any|"));
        assert_eq!(
            told(&explained.through_loopback),
            ["|deny|deny host|host|-"]
        );
    }
}

#[test]
fn a_monitored_policy_says_so() {
    let explained = ask(&["deny internet"], true, "icmp:1.1.1.1");
    assert_eq!(
        told(&explained.by_address),
        ["|monitored|deny internet|internet|-"]
    );
    assert_eq!(ask(&[], true, "1.1.1.1").by_address[0].verdict, "allow");
}

#[test]
fn the_host_of_qemu_is_known() {
    assert!(
        ask(&[], false, "tcp:10.0.2.2:22")
            .hint
            .unwrap()
            .contains("127.0.0.1")
    );
    assert_eq!(ask(&[], false, "tcp:10.0.2.3:22").hint, None);
}

#[test]
fn loopback_of_own_namespaces_is_named() {
    for address in ["tcp:127.0.0.1:22", "[::1]", "0.0.0.0"] {
        let hint = ask(&[], false, address).hint.unwrap();
        assert!(hint.contains("unshare -n"), "{hint}");
    }
}

#[test]
fn the_set_that_matched_has_the_address() {
    for (address, set) in [
        ("10.1.2.3", "lan|10.0.0.0/8"),
        ("fd00::1", "lan|[fc00::/7]"),
        ("1.1.1.1", "internet|-"),
        ("2001:db8:1::1", "internet|-"),
    ] {
        let explained = ask(&["allow internet lan"], false, address);
        assert_eq!(
            told(&explained.by_address),
            [format!("|allow|allow internet lan|{set}")],
        );
    }
}

#[test]
fn an_address_of_the_workloads_own_has_a_hint() {
    let sets = Sets {
        pod: BTreeSet::from([single("10.77.0.2".parse().unwrap())]),
        ..sets()
    };
    assert_eq!(hint("10.77.0.2".parse().unwrap(), &sets), Some(POD.into()));
    assert_eq!(hint("10.77.0.3".parse().unwrap(), &sets), None);
}

fn struck() -> Struck {
    Struck {
        address: "10.0.0.1".parse().unwrap(),
        set: "lan".into(),
    }
}

/// What a policy says of a name, with an address of it in force, and another one of www.example.org struck.
fn ask_name(rules: &[&str], monitor: bool, what: &str) -> NameExplanation {
    let policy = testing::policy(rules, monitor);
    let (rules, sets) = (policy.rules(), sets());
    let compiled: Compiled = compile(&rules, &sets, monitor).unwrap();
    let Question::Name {
        name,
        protocol,
        port,
    } = destination(what).unwrap()
    else {
        panic!("{what} is no name");
    };
    let permission = Lookups::new(&rules).permission(&name);
    let mut grants = [Grant::NONE; GRANTS];
    for (grant, of_name) in grants.iter_mut().zip(&permission.grants) {
        *grant = *of_name;
    }
    let address = NamedAddress {
        grants,
        names: vec![name.clone()],
        seconds: 58,
    };
    let asked = Asked {
        rules: &rules,
        sets: &sets,
        nodes: &compiled,
        named: &[("203.0.113.10".parse().unwrap(), address)].into(),
        struck: &[("www.example.org".to_owned(), vec![struck()])].into(),
        monitors: monitor,
    };
    explain_name(&asked, &name, protocol, port)
}

#[test]
fn the_other_rules_decide_on_what_no_rule_by_name_allows() {
    let of = |rules: &[&str], monitor| {
        let found = ask_name(rules, monitor, "tcp:www.example.org:8001");
        let [address] = &found.addresses[..] else {
            panic!("{found:?}");
        };
        let [case] = &address.by_address[..] else {
            panic!("{found:?}");
        };
        (found.lookup, found.connection, case.verdict)
    };
    let name = "allow tcp:*.example.org:8000-8001";
    let locked = "deny any";
    assert_eq!(of(&[name, locked], false), ("allow", "allow", "allow"));
    // An earlier rule by address decides.
    let denied = ["deny 203.0.113.10", name, locked];
    assert_eq!(of(&denied, false), ("allow", "allow", "deny"));
    let other = "allow tcp:www.example.org:8000";
    let open = [other, "allow tcp:any:8001", locked];
    assert_eq!(of(&open, false), ("allow", "by-address", "allow"));
    assert_eq!(of(&[other, locked], false), ("allow", "by-address", "deny"));
    let none = ["deny www.example.org", name, locked];
    assert_eq!(of(&none, false), ("deny", "deny", "deny"));
    assert_eq!(of(&none, true), ("monitored", "by-address", "monitored"));
}

#[test]
fn what_was_struck_belongs_to_its_name() {
    let of = |name: &str| ask_name(&["allow *.example.org", "deny any"], false, name).struck;
    assert_eq!(of("www.example.org"), [struck()]);
    assert_eq!(of("other.example.org"), []);
}
