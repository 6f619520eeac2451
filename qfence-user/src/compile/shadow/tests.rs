use super::*;
use crate::policy::testing;

fn shadowed(rules: &[&str]) -> Vec<String> {
    let found = find(&testing::policy(rules, false)).unwrap();
    found
        .into_iter()
        .map(|Shadowed { rule, by, .. }| format!("{rule}: {by}"))
        .collect()
}

#[test]
fn a_rule_within_one_before_it_can_never_match() {
    assert_eq!(
        shadowed(&["deny lan", "allow 10.1.2.3"]),
        ["allow 10.1.2.3: `deny lan` matches everything that it matches"]
    );
    assert_eq!(
        shadowed(&["deny tcp:any:1-100", "deny udp:any", "allow any:53"]),
        [""; 0],
        "SCTP has ports too"
    );
    assert_eq!(shadowed(&["deny host", "allow tcp:host:80"]).len(), 1);
    assert_eq!(shadowed(&["deny any", "allow dns", "allow host"]).len(), 2);
}

#[test]
fn several_rules_together_can_have_it_all() {
    assert_eq!(
        shadowed(&[
            "deny tcp:10.0.0.0/8:1-100",
            "deny tcp:10.0.0.0/8:101-200",
            "allow tcp:10.1.0.0/16:80-150"
        ]),
        [
            "allow tcp:10.1.0.0/16:80-150: `deny tcp:10.0.0.0/8:1-100` and `deny tcp:10.0.0.0/8:101-200` match \
             everything that it matches"
        ]
    );
}

#[test]
fn what_depends_on_the_host_is_no_ground() {
    for rules in [
        &["deny host", "allow 192.0.2.7"][..],
        &["deny lan", "allow dns"],
        &["allow dns", "deny lan", "deny gateway"],
        &["allow gateway:53", "deny dns"],
        &["allow dns", "deny lan"],
        &["deny lan", "allow host:80"],
        &["allow 10.1.2.3", "deny lan"],
        &["deny internet", "allow any"],
        // Networks for documentation and for discarding, as in lists of bogus networks.
        &[
            "deny 192.0.2.0/24",
            "deny 100::/64",
            "allow dns",
            "allow host:80",
        ],
    ] {
        assert_eq!(shadowed(rules), [""; 0], "{rules:?}");
    }
}

#[test]
fn what_a_translator_may_translate_is_not_surely_internet() {
    let rules = |last| ["deny internet", "deny host", last];
    // An address of a translator's can be one of a LAN.
    assert_eq!(shadowed(&rules("allow [2000::/3]")), [""; 0]);
    assert_eq!(shadowed(&rules("allow 8.0.0.0/8")).len(), 1);
}

#[test]
fn a_name_is_hidden_by_the_same_name_alone() {
    for rules in [
        &["deny lan", "allow github.com"][..],
        &["allow github.com", "allow api.github.com"],
        &["allow *.github.com", "allow github.com"],
        &["allow tcp:github.com:443", "allow github.com"],
        &["allow github.com", "allow github.com lan"],
    ] {
        assert_eq!(shadowed(rules), [""; 0], "{rules:?}");
    }
    assert_eq!(
        shadowed(&["deny github.com", "allow tcp:github.com:443"]),
        ["allow tcp:github.com:443: `deny github.com` matches everything that it matches"]
    );
    for rules in [
        ["deny tcp:github.com:443", "allow github.com"],
        ["allow tcp:github.com:80,443", "allow tcp:github.com:443"],
        ["deny any", "allow github.com"],
    ] {
        assert_eq!(shadowed(&rules).len(), 1, "{rules:?}");
    }
}

#[test]
fn a_denied_name_refuses_the_look_up_whatever_addresses_are_allowed() {
    for rules in [
        &["allow any", "deny ads.example.org"][..],
        &["allow internet", "deny *.example.org"],
        &["allow ads.example.org", "deny *.example.org"],
        // It ends what later rules would allow.
        &[
            "allow tcp:*.example.org:443",
            "deny a.example.org",
            "allow *.example.org:80",
        ],
    ] {
        assert_eq!(shadowed(rules), [""; 0], "{rules:?}");
    }
}

#[test]
fn a_name_that_is_looked_up_already_is_denied_in_vain() {
    for (first, second) in [
        ("allow *.example.org", "deny a.example.org"),
        ("allow tcp:*.example.org:443", "deny a.example.org"),
        ("allow tcp:*.example.org:443", "deny *.b.example.org"),
    ] {
        let said = format!("{second}: `{first}` allows the look-up of every name that it denies");
        assert_eq!(shadowed(&[first, second]), [said]);
    }
    assert_eq!(
        shadowed(&[
            "deny tcp:example.org:1",
            "deny udp:example.org:2",
            "allow any"
        ]),
        ["deny udp:example.org:2: `deny tcp:example.org:1` matches everything that it matches"]
    );
}

#[test]
fn both_families_alike() {
    assert_eq!(shadowed(&["deny fc00::/7", "allow fd00::1"]).len(), 1);
    assert_eq!(shadowed(&["deny ::/0", "allow fd00::1"]).len(), 1);
    assert_eq!(shadowed(&["deny 0.0.0.0/0", "allow 10.0.0.1"]).len(), 1);
    assert_eq!(shadowed(&["deny ::/0", "allow 10.0.0.1"]).len(), 0);
}
