use std::{collections::BTreeMap, net::IpAddr};

use qfence_common::Halves;

use super::*;
use crate::policy::{
    Sets,
    guard::Guard,
    hostset::{host_set, many_set, single},
    profile::Profile,
    testing,
};

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
    let text = suggest("vm1", Some(&policy), &seen, 7, None);
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
    // Comments of rules are in the lines of logs; these numbers are not.
    assert_eq!(profile.rules[1].comment, None);
    assert!(
        text.contains("# Seen 4 times.\n[[rule]]\nallow = \"tcp:127.0.0.1:80,5432\""),
        "{text}"
    );
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
    let text = suggest_allowed("vm1", &seen, Unlisted::default(), None);
    let profile = Profile::parse("vm1", None, &text).unwrap();
    assert_eq!(profile.rules.len(), 3);
    for (rule, is_marked) in [
        ("tcp:192.0.2.1:443", false),
        ("udp:192.0.2.1:443", true),
        ("udp:192.0.2.2:443", false),
    ] {
        let (before, _) = text.split_once(&format!("allow = \"{rule}\"")).unwrap();
        let remarks = before.rsplit("\n\n").next().unwrap();
        assert_eq!(remarks.contains("Try without"), is_marked, "{rule}: {text}");
    }
}

#[test]
fn what_was_let_through_is_all_that_is_allowed() {
    let seen = [
        (sighting(Protocol::TCP, "192.0.2.1", 443), 3),
        (sighting(Protocol::UDP, "2001:db8::1", 53), 9),
    ];
    let unlisted = |others, forgotten| Unlisted { others, forgotten };
    let text = suggest_allowed("vm1", &seen, unlisted(2, 0), None);
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let rules: Vec<_> = profile.rules.iter().map(|rule| rule.to_string()).collect();
    assert_eq!(
        rules,
        ["allow udp:[2001:db8::1]:53", "allow tcp:192.0.2.1:443"]
    );
    assert_eq!(profile.default, Action::Deny);
    assert!(text.contains("INCOMPLETE: 2 more calls"), "{text}");
    assert!(!text.contains("forgotten"), "{text}");
    let text = suggest_allowed("vm1", &seen, unlisted(0, 3), None);
    assert!(
        text.contains("INCOMPLETE: a destination without traffic was forgotten 3 times"),
        "{text}"
    );
    assert!(!text.contains("more calls"), "{text}");
    assert!(Profile::parse("vm1", None, &text).is_ok());
    let text = suggest_allowed("vm1", &[], Unlisted::default(), None);
    assert!(!text.contains("INCOMPLETE"), "{text}");
    let nothing = Profile::parse("vm1", None, &text).unwrap();
    assert!(nothing.rules.is_empty() && nothing.default == Action::Deny);
}

#[test]
fn nothing_seen_is_a_profile_that_allows_nothing_more() {
    let policy = testing::policy(&[], true);
    let text = suggest("vm1", Some(&policy), &[], 0, None);
    let profile = Profile::parse("vm1", None, &text).unwrap();
    assert_eq!(profile.rules.len(), 2);
    assert!(!text.contains("INCOMPLETE"));
}

#[test]
fn port_0_is_not_widened_to_every_port() {
    for address in ["127.0.0.1", "::1"] {
        let seen = [(sighting(Protocol::UDP, address, 0), 2)];
        let policy = testing::policy(&[], true);
        let text = suggest("vm1", Some(&policy), &seen, 0, None);
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
    let text = suggest("vm1", Some(&policy), &seen, 0, None);
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
    let text = suggest("vm1", Some(&policy), &[], 0, None);
    let profile = Profile::parse("vm1", None, &text).unwrap();
    assert_eq!(profile.rules[0].comment.as_deref(), Some(comment), "{text}");
    let drives = |character: &char| *character != '\n' && is_unprintable(*character);
    assert_eq!(text.chars().find(drives), None, "{text}");
}

fn guard(allows_private: bool) -> Guard {
    let sets = Sets {
        host: host_set([]),
        many: many_set([]),
        ..Sets::default()
    };
    Guard::new(&sets, allows_private)
}

type NamesByAddress = BTreeMap<IpAddr, Vec<String>>;

fn names(all: &[(&str, &[&str])]) -> NamesByAddress {
    let all = all.iter().map(|(address, names)| {
        let names = names.iter().map(|name| (*name).to_owned());
        (address.parse().unwrap(), names.collect())
    });
    all.collect()
}

/// The rules of a suggested profile, and its text.
fn suggested(
    seen: &[(Sighting, u64)],
    names: &NamesByAddress,
    allows_private: bool,
) -> (Vec<String>, String) {
    let found = Found {
        names,
        guard: guard(allows_private),
    };
    let text = suggest_allowed("vm1", seen, Unlisted::default(), Some(&found));
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let rules = profile.rules.iter().map(|rule| rule.to_string());
    (rules.collect(), text)
}

#[test]
fn an_address_that_was_looked_up_is_suggested_by_its_names() {
    let seen = [
        (sighting(Protocol::TCP, "192.0.2.1", 443), 1),
        (sighting(Protocol::TCP, "192.0.2.2", 443), 1),
        (sighting(Protocol::TCP, "192.0.2.2", 80), 1),
        (sighting(Protocol::TCP, "192.0.2.3", 443), 9),
        (sighting(Protocol::TCP, "192.0.2.4", 443), 2),
    ];
    let names = names(&[
        // A name of one label is none of a rule.
        ("192.0.2.1", &["printer", "github.com"]),
        ("192.0.2.2", &["github.com"]),
        ("192.0.2.3", &["printer"]),
        ("192.0.2.4", &["b.example.org", "a.example.org"]),
        ("192.0.2.5", &["unused.example.org", "github.com"]),
        ("10.0.0.1", &["db.example.org"]),
    ]);
    let (rules, text) = suggested(&seen, &names, false);
    assert_eq!(
        rules,
        [
            "allow tcp:192.0.2.3:443",
            "allow tcp:github.com:80,443",
            "allow tcp:a.example.org:443 tcp:b.example.org:443",
        ]
    );
    for words in [
        "# Seen 3 times.\n[[rule]]\nallow = \"tcp:github.com:80,443\"",
        "# These names have 192.0.2.4 in common",
        "looked up, but nothing was seen at their addresses:\n\
         #   db.example.org (10.0.0.1, which is of lan)\n\
         #   unused.example.org\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_no_name_opens_is_suggested_by_its_address() {
    let seen = [
        (sighting(Protocol::TCP, "10.0.0.1", 5432), 2),
        (sighting(Protocol::TCP, "127.0.0.1", 80), 1),
    ];
    let names = names(&[
        ("10.0.0.1", &["db.example.org"]),
        ("127.0.0.1", &["me.example.org"]),
    ]);
    let (rules, text) = suggested(&seen, &names, false);
    assert_eq!(rules, ["allow tcp:10.0.0.1:5432", "allow tcp:127.0.0.1:80"]);
    for remark in [
        "# Looked up as db.example.org. A rule by name does not open it, since it is of lan, unless the fence is started \
         with --names-private.",
        "# Looked up as me.example.org. A rule by name does not open it, since it is of loopback.",
    ] {
        assert!(text.contains(remark), "{remark}: {text}");
    }
    let (rules, _) = suggested(&seen, &names, true);
    assert_eq!(
        rules,
        ["allow tcp:db.example.org:5432", "allow tcp:127.0.0.1:80"]
    );
}

#[test]
fn rules_that_a_policy_has_of_itself_are_not_written_out() {
    let policy = testing::policy(&["allow www.example.org"], true);
    let own = |policy: &Policy| policy.rules().len();
    let text = suggest("vm1", Some(&policy), &[], 0, None);
    assert!(
        text.contains("www.example.org") && !text.contains("853"),
        "{text}"
    );
    let profile = Profile::parse("vm1", None, &text).unwrap();
    let again = Policy::new(
        Vec::new(),
        crate::policy::Dns::Auto,
        profile.into(),
        None,
        false,
    );
    assert_eq!(own(&again.unwrap()), own(&policy), "it has it again");
}

#[test]
fn without_a_resolver_the_way_to_names_is_told() {
    let seen = [(sighting(Protocol::TCP, "192.0.2.1", 443), 1)];
    let told = "--monitor --allow names.invalid";
    let text = suggest_allowed("vm1", &seen, Unlisted::default(), None);
    assert!(text.contains(told), "{text}");
    let (_, text) = suggested(&seen, &NamesByAddress::new(), false);
    assert!(!text.contains(told), "{text}");
}
