//! The sets of a policy: the host, its nameservers, the internet.

use super::*;

#[test]
fn the_host_is_denied_and_the_internet_allowed() {
    let compiled = compiled(&[], "");
    for address in [
        "127.0.0.1",
        "192.0.2.10",
        "198.51.100.200",
        "::1",
        "ff02::1",
    ] {
        let verdict = verdict(&compiled, Protocol::TCP, address, 53);
        assert_eq!(verdict, Action::Deny, "{address}");
    }
    for address in ["192.0.2.11", "1.1.1.1", "2001:db8::1"] {
        let verdict = verdict(&compiled, Protocol::UDP, address, 9);
        assert_eq!(verdict, Action::Allow, "{address}");
    }
}

#[test]
fn a_nameserver_is_excepted_on_its_port_alone() {
    let compiled = compiled(&[], "nameserver 127.0.0.53");
    let verdict = |protocol, address, port| verdict(&compiled, protocol, address, port);
    assert_eq!(verdict(Protocol::UDP, "127.0.0.53", 53), Action::Allow);
    assert_eq!(verdict(Protocol::TCP, "127.0.0.53", 53), Action::Allow);
    assert_eq!(verdict(Protocol::TCP, "127.0.0.53", 54), Action::Deny);
    assert_eq!(verdict(Protocol::ICMP, "127.0.0.53", 53), Action::Deny);
    assert_eq!(verdict(Protocol::UDP, "127.0.0.1", 53), Action::Deny);
}

#[test]
fn with_dns_deny_no_nameserver_is_excepted() {
    let policy = testing::policy(&[], false);
    let policy = policy.changed(|policy| policy.dns = Dns::Deny).unwrap();
    assert!(!policy.names_dns());
    let compiled = compile(&policy.rules(), &sets("nameserver 127.0.0.53"), false).unwrap();
    assert_eq!(
        verdict(&compiled, Protocol::UDP, "127.0.0.53", 53),
        Action::Deny
    );
}

#[test]
fn the_internet_is_what_is_left() {
    let compiled = compiled(&["allow tcp:internet:80", "deny any"], "");
    for address in [
        "1.1.1.1",
        "2001:db8:8::1",
        "9.255.255.255",
        "64:ff9b::1.1.1.1",
    ] {
        assert_eq!(
            verdict(&compiled, Protocol::TCP, address, 80),
            Action::Allow,
            "{address}"
        );
        assert_eq!(
            verdict(&compiled, Protocol::TCP, address, 81),
            Action::Deny,
            "{address}"
        );
        let through_loopback = on(LookupPath::Loopback, &compiled, Protocol::TCP, address, 80);
        assert_eq!(through_loopback, Action::Deny, "{address}");
    }
    for address in [
        "10.0.0.1",
        "fd00::1",
        "169.254.1.1",
        "fe80::1",
        "168.63.129.16",
        "192.0.2.10",
        "2001:db8:7::1",
        "224.0.0.1",
        "ff02::1",
        "127.0.0.1",
        "::1",
        "64:ff9b::10.0.0.1",
    ] {
        assert_eq!(
            verdict(&compiled, Protocol::TCP, address, 80),
            Action::Deny,
            "{address}"
        );
    }
}

#[test]
fn an_ipv6_prefix_is_without_ipv4() {
    let compiled = compiled(&["deny ::/0"], "");
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "2001:db8::1", 1),
        Action::Deny
    );
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "1.1.1.1", 1),
        Action::Allow
    );
}

#[test]
fn the_default_is_the_profiles_unless_given() {
    let profile = Loaded {
        name: "locked".into(),
        path: None,
        rules: Vec::new(),
        default: testing::rule("deny any"),
    };
    for (default, action) in [(None, Action::Deny), (Some(Action::Allow), Action::Allow)] {
        let policy = Policy::new(Vec::new(), Dns::Auto, profile.clone(), default, false).unwrap();
        let compiled = compile(&policy.rules(), &sets(""), false).unwrap();
        for address in ["1.1.1.1", "2001:db8::1"] {
            assert_eq!(verdict(&compiled, Protocol::TCP, address, 80), action);
        }
    }
}
