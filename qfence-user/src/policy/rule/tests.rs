use std::net::IpAddr;

use super::*;
use crate::policy::hostset::{prefix, single};

fn parse(text: &str) -> Match {
    text.parse().unwrap()
}

fn in_effect(text: &str) -> Vec<(u32, String)> {
    let pairs = parse(text).in_effect();
    pairs
        .into_iter()
        .map(|(protocol, ports)| (protocol.0, ports.to_string()))
        .collect()
}

fn holds(destination: &str, address: &str) -> bool {
    let address = single(address.parse().unwrap());
    let prefixes = parse(destination).destination.prefixes().unwrap();
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

#[test]
fn without_ports_a_rule_is_about_every_protocol() {
    assert_eq!(in_effect("host"), [(0, String::new())]);
    assert_eq!(in_effect("tcp:host"), [(6, String::new())]);
}

#[test]
fn with_ports_and_no_protocol_it_is_about_those_that_have_ports() {
    let protocols: Vec<_> = in_effect("host:80")
        .into_iter()
        .map(|pair| pair.0)
        .collect();
    assert_eq!(protocols, [6, 17, 132, 33, 136]);
    assert_eq!(in_effect("udp:host:80,90"), [(17, "80,90".to_owned())]);
}

#[test]
fn icmp_is_that_of_both_families() {
    assert_eq!(
        in_effect("icmp:any"),
        [(1, String::new()), (58, String::new())]
    );
    assert_eq!(in_effect("proto-58:any"), [(58, String::new())]);
}

#[test]
fn dns_is_port_53_over_udp_and_tcp_unless_the_rule_says_otherwise() {
    let port = |text: &str| text.to_owned();
    assert_eq!(in_effect("dns"), [(17, port("53")), (6, port("53"))]);
    assert_eq!(in_effect("dns:853"), [(17, port("853")), (6, port("853"))]);
    assert_eq!(in_effect("tcp:dns"), [(6, port("53"))]);
    assert_eq!(in_effect("sctp:dns"), [(132, port("53"))]);
    assert_eq!(in_effect("icmp:dns"), [(1, port("")), (58, port(""))]);
}

#[test]
fn all_of_one_family_is_not_the_other() {
    assert!(holds("0.0.0.0/0", "203.0.113.1") && !holds("0.0.0.0/0", "2001:db8::1"));
    for address in [
        "2001:db8::1",
        "::",
        "::1",
        "::fffe:0:0",
        "::1:0:0:0",
        "ffff::1",
    ] {
        assert!(holds("::/0", address), "{address} is not in ::/0");
        assert!(!holds("0.0.0.0/0", address), "{address} is in 0.0.0.0/0");
    }
    for address in [
        "0.0.0.0",
        "203.0.113.1",
        "255.255.255.255",
        "::ffff:192.0.2.1",
    ] {
        assert!(!holds("::/0", address), "{address} is in ::/0");
        assert!(holds("any", address));
    }
    assert_eq!(parse("::/0").destination.prefixes().unwrap().len(), 96);
    assert_eq!(parse("any").destination.prefixes().unwrap().len(), 1);
}

#[test]
fn only_what_holds_ipv4_is_taken_apart() {
    for (text, prefixes) in [
        ("[::/64]", 32),
        ("[::fffe:0:0/95]", 1),
        ("[::/96]", 1),
        ("[2000::/3]", 1),
        ("[8000::/1]", 1),
        ("[::/1]", 95),
        ("10.0.0.0/8", 1),
    ] {
        let members = parse(text).destination.prefixes().unwrap();
        assert_eq!(members.len(), prefixes, "{text}");
    }
}

#[test]
fn sets_that_depend_on_the_host_have_no_prefixes_here() {
    for text in ["host", "dns", "internet"] {
        assert_eq!(parse(text).destination.prefixes(), None);
    }
    let lan = parse("lan").destination.prefixes().unwrap();
    assert!(lan.contains(&prefix(IpAddr::from([10, 0, 0, 0]), 8).unwrap()));
}

#[test]
fn a_rule_survives_storage() {
    let rule = Rule {
        action: Action::Allow,
        matches: vec![parse("tcp:[fd00::/8]:80,443"), parse("metadata")],
        comment: Some("the printers".into()),
        source: Source::Profile {
            name: "web".into(),
            path: Some("/etc/qfence/profiles.d/web.toml".into()),
            line: 7,
        },
    };
    let json = serde_json::to_string(&rule).unwrap();
    assert_eq!(
        json,
        r#"{"action":"allow","matches":["tcp:[fd00::/8]:80,443","metadata"],"comment":"the printers","source":{"kind":"profile","name":"web","path":"/etc/qfence/profiles.d/web.toml","line":7}}"#
    );
    assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    let bad = json.replace("metadata", "metadat");
    let error = serde_json::from_str::<Rule>(&bad).unwrap_err().to_string();
    assert!(error.contains("did you mean metadata?"), "{error}");
    let bad = json.replace("\"allow\"", "\"alow\"");
    assert!(serde_json::from_str::<Rule>(&bad).is_err());
}

#[test]
fn rules_and_their_sources_read_well() {
    let rule = Rule {
        action: Action::Deny,
        matches: vec![parse("lan"), parse("udp:192.0.2.1:53")],
        comment: None,
        source: Source::Flag {
            text: "--deny lan".into(),
        },
    };
    assert_eq!(rule.to_string(), "deny lan udp:192.0.2.1:53");
    assert_eq!(rule.source.to_string(), "--deny lan");
    let source = Source::Default {
        name: "locked".into(),
        path: None,
        line: 4,
    };
    assert_eq!(source.to_string(), "default of locked (shipped, line 4)");
}
