mod grow;
mod intervals;
mod size;

use qfence_common::Action;

use super::*;
use crate::policy::{
    Dns, Loaded, Policy,
    hostset::{host_set, many_set, prefix},
    nameservers, testing,
};

fn sets(resolv_conf: &str) -> Sets {
    let lan = single("192.0.2.10".parse().unwrap());
    let any_ip = prefix("198.51.100.0".parse().unwrap(), 24).unwrap();
    let broadcast = single("192.0.2.255".parse().unwrap());
    let host_v6 = single("2001:db8:7::1".parse().unwrap());
    Sets {
        host: host_set([lan, any_ip, broadcast, host_v6]),
        many: many_set([broadcast]),
        nameservers: nameservers::parse(resolv_conf.as_bytes()),
        ..Sets::default()
    }
}

/// The profile `host` with rules before it, on a host with this resolv.conf.
fn compiled(rules: &[&str], resolv_conf: &str) -> Compiled {
    let policy = testing::policy(rules, false);
    compile(&policy.rules(), &sets(resolv_conf), false).unwrap()
}

fn on(
    path: LookupPath,
    compiled: &Compiled,
    protocol: Protocol,
    address: &str,
    port: u16,
) -> Action {
    let address = address.parse().unwrap();
    compiled.decide(path, protocol, address, port).action()
}

fn verdict(compiled: &Compiled, protocol: Protocol, address: &str, port: u16) -> Action {
    on(LookupPath::Address, compiled, protocol, address, port)
}

#[test]
fn through_loopback_everything_is_the_host() {
    let compiled = compiled(&[], "nameserver 127.0.0.53\nnameserver 1.1.1.1");
    let verdict = |address, port| {
        on(
            LookupPath::Loopback,
            &compiled,
            Protocol::UDP,
            address,
            port,
        )
    };
    for address in ["127.0.0.1", "8.8.8.8", "2001:db8::1", "::1"] {
        assert_eq!(verdict(address, 53), Action::Deny);
    }
    // A nameserver that is reached through loopback is the host's own.
    for address in ["127.0.0.53", "1.1.1.1"] {
        assert_eq!(verdict(address, 53), Action::Allow);
        assert_eq!(verdict(address, 54), Action::Deny);
    }
}

#[test]
fn what_is_allowed_by_address_is_allowed_through_loopback() {
    let compiled = compiled(&["allow tcp:127.0.0.1:5432", "allow tcp:[::1]:5432"], "");
    for address in ["127.0.0.1", "::1"] {
        for path in LookupPath::ALL {
            let verdict = |protocol, port| on(path, &compiled, protocol, address, port);
            assert_eq!(verdict(Protocol::TCP, 5432), Action::Allow);
            assert_eq!(verdict(Protocol::MPTCP, 5432), Action::Allow);
            assert_eq!(verdict(Protocol::TCP, 5431), Action::Deny);
            assert_eq!(verdict(Protocol::UDP, 5432), Action::Deny);
        }
    }
    assert_eq!(
        verdict(&compiled, Protocol::TCP, "127.0.0.2", 5432),
        Action::Deny
    );
}

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
