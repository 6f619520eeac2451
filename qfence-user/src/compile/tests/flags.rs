//! The flags of verdicts and policies.

use qfence_common::verdict::POD;

use super::*;

/// The programs allow SO_BROADCAST on UDP sockets only if the policy allows a broadcast address.
#[test]
fn a_policy_says_whether_it_lets_any_broadcast_through() {
    let allows = |rules: &[&str]| {
        let compiled = compiled(rules, "nameserver 127.0.0.53");
        let flags = compiled.read(FLAGS).and_then(|node| node.verdict());
        flags.unwrap().has(MANY)
    };
    for rules in [
        &[][..],
        &["allow tcp:127.0.0.1:80", "allow 198.51.100.0/24"],
        &["allow udp:[ff02::1]:9"],
        &["deny 0.0.0.0/0", "allow udp:192.0.2.255:9"],
    ] {
        assert!(!allows(rules), "{rules:?}");
    }
    for rules in [
        &["allow udp:192.0.2.255:9"][..],
        &["allow 0.0.0.0/0"],
        &["allow any"],
        &["allow host:9"],
    ] {
        assert!(allows(rules), "{rules:?}");
    }
}

#[test]
fn broadcast_and_multicast_are_marked() {
    let compiled = compiled(&[], "");
    let has = |address: &str, flag| {
        let address = address.parse().unwrap();
        let has = |port| {
            compiled
                .decide(LookupPath::Address, Protocol::TCP, address, port)
                .has(flag)
        };
        assert_eq!(has(0), has(53));
        has(53)
    };
    for address in ["255.255.255.255", "224.0.0.251", "192.0.2.255", "ff02::fb"] {
        assert!(has(address, MANY), "{address}");
    }
    for address in ["127.0.0.1", "192.0.2.10", "1.1.1.1", "::1", "198.51.100.3"] {
        assert!(!has(address, MANY), "{address}");
    }
    for address in [
        "127.0.0.1",
        "192.0.2.10",
        "::1",
        "198.51.100.3",
        "192.0.2.255",
    ] {
        assert!(has(address, HOST), "{address}");
    }
    for address in ["1.1.1.1", "192.0.2.11", "2001:db8::1"] {
        assert!(!has(address, HOST), "{address}");
    }
}

#[test]
fn all_verdicts_say_that_the_policy_is_monitored() {
    let policy = testing::policy(&["allow 10.0.0.0/8:80"], true);
    for monitor in [true, false] {
        let compiled = compile(&policy.rules(), &sets(""), monitor).unwrap();
        let verdicts: Vec<_> = compiled.nodes.iter().filter_map(Node::verdict).collect();
        assert!(verdicts.len() > 10);
        assert!(
            verdicts
                .iter()
                .all(|verdict| verdict.has(MONITOR) == monitor)
        );
    }
}

/// What leaves through the loopback device stays in the namespace of the workload, whatever its address.
#[test]
fn addresses_of_a_pod_are_marked_if_its_services_are_allowed() {
    let own = single("10.77.0.2".parse().unwrap());
    let mut sets = sets("");
    let has = |sets: &Sets, path, address: &str| {
        let compiled = compile(&testing::policy(&[], false).rules(), sets, false).unwrap();
        let verdict = compiled.decide(path, Protocol::TCP, address.parse().unwrap(), 80);
        verdict.has(POD)
    };
    let paths = [LookupPath::Address, LookupPath::Loopback];
    for path in paths {
        assert!(!has(&sets, path, "10.77.0.2"));
    }
    sets.pod.insert(own);
    for (address, marked) in [("10.77.0.2", [true, true]), ("192.0.2.10", [false, true])] {
        assert_eq!(
            paths.map(|path| has(&sets, path, address)),
            marked,
            "{address}"
        );
    }
}
