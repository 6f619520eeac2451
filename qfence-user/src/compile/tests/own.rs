//! The set `self`.

use super::*;

/// The rule for `self` that a verdict has beside its own.
fn own(compiled: &Compiled, protocol: Protocol, address: &str, port: u16) -> Option<u32> {
    let address = address.parse().unwrap();
    let by_path = LookupPath::ALL.map(|path| {
        let verdict = compiled.decide(path, protocol, address, port);
        assert!(verdict.self_rule().is_none() || verdict.action() == Action::Deny);
        verdict.self_rule()
    });
    by_path[0].inspect(|rule| assert_eq!(by_path[1], Some(*rule)))
}

#[test]
fn self_is_beside_what_denies_the_host_after_it() {
    let compiled = compiled(
        &[
            "deny tcp:127.0.0.1:2000",
            "allow tcp:host:3000",
            "allow self",
            "deny tcp:127.0.0.1:4000",
            "allow tcp:127.0.0.1:5000",
            "allow udp:self:6000",
        ],
        "",
    );
    let tcp = |address, port| own(&compiled, Protocol::TCP, address, port);
    for address in ["127.0.0.1", "192.0.2.10", "::1", "0.0.0.0", "2001:db8:7::1"] {
        assert_eq!(tcp(address, 8000), Some(2), "{address}");
        assert_eq!(tcp(address, 1023), None, "{address}");
        assert_eq!(tcp(address, 3000), None, "{address}");
        let udp = |port| own(&compiled, Protocol::UDP, address, port);
        assert_eq!((udp(6000), udp(6001)), (Some(5), None), "{address}");
    }
    // A rule before it decides; one after it decides what is not self.
    assert_eq!(tcp("127.0.0.1", 2000), None);
    assert_eq!(tcp("127.0.0.1", 4000), Some(2));
    assert_eq!(tcp("127.0.0.1", 5000), None);
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "127.0.0.1", 5000),
        Action::Allow
    );
    // Neither others nor addresses with many receivers.
    for address in [
        "192.0.2.11",
        "8.8.8.8",
        "192.0.2.255",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        assert_eq!(
            compiled
                .decide(
                    LookupPath::Address,
                    Protocol::TCP,
                    address.parse().unwrap(),
                    8000
                )
                .self_rule(),
            None,
            "{address}"
        );
    }
}

#[test]
fn only_a_policy_with_self_says_so() {
    use qfence_common::verdict::SELF;
    let flags = |compiled: &Compiled| compiled.read(FLAGS).unwrap().verdict().unwrap();
    assert!(!flags(&compiled(&["allow tcp:host:80"], "")).has(SELF));
    assert!(flags(&compiled(&["allow tcp:self:8000"], "")).has(SELF));
    // Everything is allowed, so nothing depends on it.
    assert!(!flags(&compiled(&["allow any", "allow self"], "")).has(SELF));
}
