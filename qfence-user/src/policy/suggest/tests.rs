use qfence_common::Halves;

use super::*;
use crate::policy::{profile::Profile, testing};

fn sighting(protocol: Protocol, address: &str, port: u32) -> Sighting {
    let address: IpAddr = address.parse().unwrap();
    Sighting {
        address: Halves::of(single(address).addr().octets()),
        port,
        protocol: protocol.0,
    }
}

#[test]
fn what_was_seen_becomes_rules_that_say_no_more() {
    let seen = [
        (sighting(Protocol::TCP, "127.0.0.1", 5432), 3),
        (sighting(Protocol::MPTCP, "127.0.0.1", 80), 1),
        (sighting(Protocol::UDP, "fd00::1", 53), 9),
        (sighting(Protocol::ICMP, "192.0.2.10", 0), 1),
        (sighting(Protocol::ICMPV6, "::1", 0), 1),
    ];
    let policy = testing::policy(&["deny lan"], true);
    let text = suggest("vm1", Some(&policy), &seen, 7, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let rules: Vec<_> = profile.rules.iter().map(|rule| rule.to_string()).collect();
    assert_eq!(
        rules,
        [
            "allow udp:[fd00::1]:53",
            "allow tcp:127.0.0.1:80,5432",
            "allow icmp:192.0.2.10",
            "allow icmp:[::1]",
            "deny lan",
            "allow dns",
            "deny host",
        ]
    );
    assert_eq!(profile.rules[1].comment.as_deref(), Some("seen 4 times"));
    assert_eq!(profile.default, Action::Allow);
    assert!(text.contains("INCOMPLETE: 7 more attempts"), "{text}");
}

#[test]
fn udp_to_where_tcp_goes_is_marked_as_perhaps_of_a_look_up() {
    let seen = [
        (sighting(Protocol::TCP, "192.0.2.1", 443), 3),
        (sighting(Protocol::UDP, "192.0.2.1", 443), 2),
        (sighting(Protocol::UDP, "192.0.2.2", 443), 1),
    ];
    let text = suggest_allowed("vm1", &seen, 0, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let marked = profile.rules.iter().map(|rule| {
        let comment = rule.comment.as_deref().unwrap_or_default();
        (rule.to_string(), comment.contains("try without"))
    });
    assert_eq!(
        marked.collect::<Vec<_>>(),
        [
            ("allow tcp:192.0.2.1:443".to_owned(), false),
            ("allow udp:192.0.2.1:443".to_owned(), true),
            ("allow udp:192.0.2.2:443".to_owned(), false),
        ]
    );
}

#[test]
fn what_was_let_through_is_all_that_is_allowed() {
    let seen = [
        (sighting(Protocol::TCP, "192.0.2.1", 443), 3),
        (sighting(Protocol::UDP, "2001:db8::1", 53), 9),
    ];
    let text = suggest_allowed("vm1", &seen, 2, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let rules: Vec<_> = profile.rules.iter().map(|rule| rule.to_string()).collect();
    assert_eq!(
        rules,
        ["allow udp:[2001:db8::1]:53", "allow tcp:192.0.2.1:443"]
    );
    assert_eq!(profile.default, Action::Deny);
    assert!(text.contains("INCOMPLETE: 2 more calls"), "{text}");
    let nothing = Profile::parse(
        "vm1",
        None,
        &suggest_allowed("vm1", &[], 0, &NamesByAddress::new()),
    )
    .unwrap();
    assert!(nothing.rules.is_empty() && nothing.default == Action::Deny);
}

#[test]
fn nothing_seen_is_a_profile_that_allows_nothing_more() {
    let policy = testing::policy(&[], true);
    let text = suggest("vm1", Some(&policy), &[], 0, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    assert_eq!(profile.rules.len(), 2);
    assert!(!text.contains("INCOMPLETE"));
}

#[test]
fn port_0_is_not_widened_to_every_port() {
    for address in ["127.0.0.1", "::1"] {
        let seen = [(sighting(Protocol::UDP, address, 0), 2)];
        let policy = testing::policy(&[], true);
        let text = suggest("vm1", Some(&policy), &seen, 0, &NamesByAddress::new());
        let profile = Profile::parse("vm1", None, &text).unwrap();
        assert_eq!(profile.rules.len(), 2, "{text}");
        let told = format!("only port 0: udp to {address}, seen 2 times");
        assert!(text.contains(&told), "{text}");
    }
}

#[test]
fn all_that_there_is_room_to_see_fits() {
    let seen: Vec<_> = (0..qfence_common::abi::SIGHTINGS)
        .map(|at| {
            let address = format!("10.0.{}.{}", at >> 8, at & 0xff);
            (sighting(Protocol::TCP, &address, 80), 1)
        })
        .collect();
    let policy = testing::policy(&[], true);
    let text = suggest("vm1", Some(&policy), &seen, 0, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let matches: usize = profile.rules.iter().map(|rule| rule.matches.len()).sum();
    assert_eq!(matches, seen.len() + 2);
    let loaded = profile.into();
    Policy::new(Vec::new(), crate::policy::Dns::Auto, loaded, None, false).unwrap();
}

#[test]
fn a_comment_is_carried_over_as_it_is() {
    let mut policy = testing::policy(&["deny lan"], true);
    let comment = "a \"quoted\" \\ one, it's \u{e9}\u{202e}\u{ad}\u{e0041}";
    policy.given[0].comment = Some(comment.to_owned());
    let text = suggest("vm1", Some(&policy), &[], 0, &NamesByAddress::new());
    let profile = Profile::parse("vm1", None, &text).unwrap();
    assert_eq!(profile.rules[0].comment.as_deref(), Some(comment), "{text}");
    let drives = |character: &char| *character != '\n' && is_unprintable(*character);
    assert_eq!(text.chars().find(drives), None, "{text}");
}

#[test]
fn an_address_that_was_looked_up_is_suggested_by_its_name() {
    let seen = [
        (sighting(Protocol::TCP, "192.0.2.1", 443), 1),
        (sighting(Protocol::TCP, "192.0.2.2", 443), 1),
        (sighting(Protocol::TCP, "192.0.2.2", 80), 1),
        (sighting(Protocol::TCP, "192.0.2.3", 443), 9),
    ];
    let names = NamesByAddress::from([
        // A name of one label is none of a rule.
        (
            "192.0.2.1".parse().unwrap(),
            vec!["printer".into(), "github.com".into()],
        ),
        ("192.0.2.2".parse().unwrap(), vec!["github.com".into()]),
        ("192.0.2.3".parse().unwrap(), vec!["printer".into()]),
    ]);
    let text = suggest_allowed("vm1", &seen, 0, &names);
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let rules: Vec<_> = profile.rules.iter().map(|rule| rule.to_string()).collect();
    assert_eq!(
        rules,
        ["allow tcp:192.0.2.3:443", "allow tcp:github.com:80,443"]
    );
    assert_eq!(profile.rules[1].comment.as_deref(), Some("seen 3 times"));
}
