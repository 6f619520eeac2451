mod advice;

use proptest::prelude::*;
use qfence_common::address::V4_PREFIX_BITS;

use super::*;
use crate::policy::{
    Prefix, domain::DomainPattern, hostset, ports::Ports, protocol::WITH_PORTS, rule::Destination,
    set::SetName,
};

/// The canonical form of a text.
fn canonical(text: &str) -> String {
    text.parse::<Match>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .to_string()
}

/// An address of each family as in a rule with ports, and a prefix.
const FAMILIES: [(&str, &str); 2] = [
    ("192.0.2.1", "192.0.2.0/24"),
    ("[2001:db8::1]", "[2001:db8::/32]"),
];

#[test]
fn protocol_destination_and_ports_combine_in_both_families() {
    for (address, prefix) in FAMILIES {
        for place in [address, prefix] {
            for protocol in [
                "",
                "tcp:",
                "udp:",
                "sctp:",
                "dccp:",
                "udplite:",
                "proto-99:",
                "gre:",
            ] {
                let text = format!("{protocol}{place}");
                assert_eq!(canonical(&text), text);
            }
            for protocol in ["", "tcp:", "udp:", "sctp:", "dccp:", "udplite:"] {
                for ports in ["80", "80,443", "3000-3010", "80,443,8000-8080", "1-65535"] {
                    let text = format!("{protocol}{place}:{ports}");
                    assert_eq!(canonical(&text), text);
                }
            }
        }
    }
}

#[test]
fn sets_take_what_addresses_take() {
    for set in SetName::ALL {
        for text in [
            set.to_string(),
            format!("tcp:{set}"),
            format!("{set}:25"),
            format!("tcp:{set}:25"),
        ] {
            assert_eq!(canonical(&text), text);
        }
    }
}

#[test]
fn what_is_the_same_is_written_the_same() {
    for (text, same) in [
        ("any:192.0.2.1", "192.0.2.1"),
        ("any:[2001:db8::1]", "[2001:db8::1]"),
        ("any:any", "any"),
        ("any:any:80", "any:80"),
        ("proto-6:any", "tcp:any"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:db8::1/128", "[2001:db8::1]"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("2001:DB8:0::1", "[2001:db8::1]"),
        // The length shows that everything before it is the address.
        ("2001:db8::1:443/128", "[2001:db8::1:443]"),
        ("fd00::/8", "[fd00::/8]"),
        ("[fd00::]/8", "[fd00::/8]"),
        ("[fd00::]/8:443", "[fd00::/8]:443"),
        ("tcp:[fd00::]/8:443", "tcp:[fd00::/8]:443"),
        ("::", "[::]"),
        ("::1", "[::1]"),
        ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]"),
        ("64:ff9b::10.0.0.1", "[64:ff9b::a00:1]"),
        ("host:443,80,80,81", "host:80-81,443"),
        ("host:1-10,5-20", "host:1-20"),
        ("[192.0.2.1]:80", "192.0.2.1:80"),
    ] {
        assert_eq!(canonical(text), same);
    }
}

#[test]
fn the_v4_mapped_spelling_is_the_ipv4_address() {
    for (text, same) in [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
        ("tcp:[::ffff:c000:201]:80", "tcp:192.0.2.1:80"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ] {
        assert_eq!(canonical(text), same);
    }
}

#[test]
fn any_before_ports_is_the_destination() {
    let web: Match = "any:80".parse().unwrap();
    assert_eq!(web.destination, Destination::Set(SetName::Any));
    assert_eq!(web.ports.single(), Some(80));
    let one: Match = "any:192.0.2.1".parse().unwrap();
    assert!(matches!(one.destination, Destination::Prefix(_)));
}

#[test]
fn a_question_is_about_one_address() {
    for (text, protocol, address, port) in [
        ("192.0.2.1", None, "192.0.2.1", None),
        ("2001:db8::1", None, "2001:db8::1", None),
        (
            "tcp:192.0.2.1:443",
            Some(Proto::TCP),
            "192.0.2.1",
            Some(443),
        ),
        (
            "tcp:[2001:db8::1]:443",
            Some(Proto::TCP),
            "2001:db8::1",
            Some(443),
        ),
        ("icmp:192.0.2.1", Some(Proto::Icmp), "192.0.2.1", None),
        ("[::ffff:192.0.2.1]:53", None, "192.0.2.1", Some(53)),
    ] {
        let query = Query {
            protocol,
            address: address.parse().unwrap(),
            port,
        };
        assert_eq!(destination(text), Ok(Question::Address(query)));
    }
}

/// Texts that are neither a rule nor a question.
const BAD: &str = include_str!("tests/bad.txt");

const BAD_QUESTIONS: [&str; 8] = [
    "lan",
    "any",
    "tcp:any:80",
    "192.0.2.0/24",
    "[2001:db8::/32]:443",
    "192.0.2.1:80,443",
    "[2001:db8::1]:80-90",
    "localhost",
];

#[test]
fn every_error_says_what_is_wrong_and_what_to_do() {
    let cases = BAD.lines().filter(|line| !line.starts_with('#'));
    // These cannot be in a file of lines.
    let blank = ["tcp:host:80\r", "lan\n", "tcp:\u{a0}lan", "lan\0"];
    let messages: Vec<_> = cases
        .chain(blank)
        .map(|text| match text.parse::<Match>() {
            Ok(rule) => panic!("{text:?} was taken for {rule}"),
            Err(error) => format!("{text:?}\n    {error}\n"),
        })
        .collect();
    let sets = SetName::ALL.map(SetName::name).join(", ");
    insta::assert_snapshot!(messages.join("\n").replace(&sets, "(all sets)"));
}

#[test]
fn every_error_in_a_question_says_so() {
    let messages = BAD_QUESTIONS.map(|text| match destination(text) {
        Ok(query) => panic!("{text:?} was taken for {query:?}"),
        Err(error) => format!("{text:?}\n    {error}\n"),
    });
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn an_error_is_short_whatever_it_is_about() {
    let ports = (1..10_000).map(|port| format!("{}", port * 2));
    let ports = ports.collect::<Vec<_>>().join(",");
    for text in [
        "x".repeat(100_000),
        ports.clone(),
        format!("tcp:{ports}"),
        format!("fd00::1:{ports}"),
        format!("host:{ports},x"),
        format!("icmp:host:{ports}"),
        format!("host:{},", "80,".repeat(10_000)),
        format!("[{}]", ":".repeat(10_000)),
        format!("192.0.2.0/{}", "1".repeat(10_000)),
        format!("proto-{}:any", "1".repeat(10_000)),
    ] {
        let error = text.parse::<Match>().unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
    }
    let error = destination(&format!("192.0.2.1:{ports}")).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    let error = "tcp:\u{1b}[31mhost".parse::<Match>().unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'));
}

fn any_proto() -> impl Strategy<Value = Proto> {
    prop_oneof![
        Just(Proto::Any),
        Just(Proto::Icmp),
        prop::sample::select(
            WITH_PORTS
                .map(|protocol| protocol.0.to_le_bytes()[0])
                .to_vec()
        )
        .prop_map(Proto::Number),
        (1..=255u8).prop_map(Proto::Number),
    ]
}

fn any_prefix() -> impl Strategy<Value = Prefix> {
    let v4 = (any::<std::net::Ipv4Addr>(), 0..=32u8).prop_map(|(a, l)| (a.into(), l));
    let v6 = (any::<std::net::Ipv6Addr>(), 0..=128u8).prop_map(|(a, l)| (a.into(), l));
    prop_oneof![v4, v6].prop_map(|(address, length)| hostset::prefix(address, length).unwrap())
}

fn any_pattern() -> impl Strategy<Value = DomainPattern> {
    let label = "[a-z0-9_]([a-z0-9_-]{0,9}[a-z0-9_])?";
    let name = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    // A top-level domain begins with a letter.
    (any::<bool>(), name, "[a-z][a-z0-9]{0,5}").prop_map(|(is_below, name, top)| DomainPattern {
        name: format!("{name}.{top}").parse().unwrap(),
        is_below,
    })
}

fn any_destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        prop::sample::select(SetName::ALL.to_vec()).prop_map(Destination::Set),
        any_prefix().prop_map(Destination::Prefix),
        any_pattern().prop_map(Destination::Name),
    ]
}

fn any_ports() -> impl Strategy<Value = Ports> {
    let range = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let ranges = prop::collection::vec(range, 0..6);
    ranges.prop_map(|ranges| Ports::new(ranges).unwrap_or(Ports::EVERY))
}

prop_compose! {
    fn any_match()(protocol in any_proto(), destination in any_destination(), ports in any_ports())
        -> Match
    {
        let ports = if protocol.has_ports() { ports } else { Ports::EVERY };
        let of = Match { protocol, destination, ports };
        if of.is_self() { Match { protocol: Proto::TCP, ..of } } else { of }
    }
}

#[test]
fn a_name_is_a_destination_with_protocol_and_ports() {
    for (text, canonical_text) in [
        ("github.com", "github.com"),
        ("GitHub.com.", "github.com"),
        ("tcp:github.com:443", "tcp:github.com:443"),
        ("*.github.com:80,443", "*.github.com:80,443"),
        ("any:*.github.com", "*.github.com"),
        ("udp:gäste.example:123", "udp:xn--gste-loa.example:123"),
        ("3.de", "3.de"),
        ("dead.beef", "dead.beef"),
        ("proto-47.example.com", "proto-47.example.com"),
        ("Proto-47.example.com:443", "proto-47.example.com:443"),
        ("proto-47:proto-6.example", "gre:proto-6.example"),
    ] {
        assert_eq!(canonical(text), canonical_text);
    }
    assert!(of_action(Action::Deny, "*.github.com").is_ok());
    for text in ["tcp:github.com", "github.com:22", "tcp:*.github.com:443"] {
        assert!(of_action(Action::Allow, text).is_ok());
        let error = of_action(Action::Deny, text).unwrap_err();
        assert!(
            error.to_string().contains("refusing its look-up"),
            "{error}"
        );
    }
    let asked = destination("tcp:github.com:443").unwrap();
    let Question::Name {
        name,
        protocol,
        port,
    } = asked
    else {
        panic!("{asked:?}")
    };
    assert_eq!(
        (name.as_str(), protocol, port),
        ("github.com", Some(Proto::TCP), Some(443))
    );
    assert!(destination("*.github.com").is_err());
}

#[test]
fn self_is_tcp_or_ports_of_udp_and_never_denied() {
    for text in [
        "self",
        "tcp:self",
        "self:8000",
        "tcp:self:8000-9000",
        "udp:self:5353",
    ] {
        assert_eq!(canonical(text), text);
        assert_eq!(
            of_action(Action::Deny, text),
            Err(RuleError::DeniedSelf),
            "{text}"
        );
        assert!(of_action(Action::Allow, text).is_ok());
    }
    for text in ["udp:self", "icmp:self", "sctp:self:80", "proto-47:self"] {
        assert_eq!(text.parse::<Match>(), Err(RuleError::NotOfSelf), "{text}");
    }
    let in_effect = |text: &str| {
        let of: Match = text.parse().unwrap();
        let of = of.in_effect();
        of.iter()
            .map(|(protocol, ports)| format!("{} {ports}", protocol.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(in_effect("self"), ["6 1024-65535"]);
    assert_eq!(in_effect("self:80"), ["6 80", "17 80"]);
    assert_eq!(in_effect("udp:self:53"), ["17 53"]);
}

proptest! {
    #[test]
    fn what_is_displayed_is_read_back_as_the_same(of in any_match()) {
        prop_assert_eq!(of.to_string().parse::<Match>(), Ok(of));
    }

    #[test]
    fn anything_is_a_rule_or_an_error(text in ".*") {
        let _ = text.parse::<Match>();
        let _ = destination(&text);
    }

    #[test]
    fn what_looks_like_a_rule_is_one_or_an_error_and_means_what_it_displays(
        text in "(tcp:|any:|icmp:|proto-[0-9]{1,3}:)?\
                 ([0-9a-f:./%\\[\\]]{0,20}|host|dns|[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?\
                 |(\\*\\.)?(proto-|Proto-|host|self)?([A-Za-z0-9-]{1,4}\\.){1,2}[a-z]{2})\
                 (:[0-9,-]{0,9})?",
    ) {
        if let Ok(of) = text.parse::<Match>() {
            prop_assert_eq!(of.to_string().parse::<Match>(), Ok(of));
        }
    }

    #[test]
    fn all_of_a_prefix_is_in_its_prefixes_but_for_the_other_family(
        prefix in any_prefix(),
        address in any::<std::net::IpAddr>(),
    ) {
        let key = hostset::single(address);
        let parts = Destination::Prefix(prefix).prefixes().unwrap();
        let inside = parts.iter().filter(|part| part.contains(&key)).count();
        let v4 = |net: &Prefix| {
            net.addr().to_ipv4_mapped().is_some() && net.prefix_len() >= V4_PREFIX_BITS
        };
        let expected = prefix.contains(&key) && (v4(&prefix) || !v4(&key));
        prop_assert_eq!(inside, usize::from(expected));
    }
}
