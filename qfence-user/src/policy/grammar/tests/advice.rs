//! Every rule that an error advises is accepted for the same action.

use super::*;

/// The rules that an error advises. Parts of rules, and forms such as `[ADDRESS]:PORTS`, are none.
fn advised(error: &RuleError) -> Vec<String> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    match error {
        RuleError::Empty => words("tcp:192.0.2.1:443 lan"),
        RuleError::UnknownDestination {
            nearest, action, ..
        } => {
            let sets = SetName::ALL.map(SetName::name).into_iter();
            // The message names those that can be.
            let sets = sets.filter(|set| *action == Action::Allow || *set != "self");
            let names = sets.chain(*nearest).map(str::to_owned);
            names.chain(["www.example.org".to_owned()]).collect()
        }
        RuleError::NoDestination { instead, .. } | RuleError::NoBrackets { instead, .. } => {
            vec![instead.clone()]
        }
        RuleError::Url { instead, .. } => {
            let rule = instead.rsplit(' ').next().unwrap_or_default();
            vec![rule.to_owned()]
        }
        RuleError::Path { name, .. } => vec![name.to_string()],
        RuleError::DeniedNameWithPorts { name, .. } => vec![name.to_string()],
        RuleError::Star { .. } => words("*.example.org any"),
        RuleError::StarOfOneLabel { .. } => words("*.example.org"),
        RuleError::Localhost { .. } => words("loopback 127.0.0.1 [::1]"),
        RuleError::NotV6 { .. } => words("2001:db8::1 [2001:db8::1]:443"),
        RuleError::NotAnAddress { .. } => words("192.0.2.1 [2001:db8::1]"),
        RuleError::Zone { without, .. } => vec![without.to_string()],
        RuleError::AddressOrPort { address, port, .. } => vec![address.clone(), port.clone()],
        RuleError::HostBits {
            network, address, ..
        } => vec![network.to_string(), address.to_string()],
        RuleError::MappedLength { network, .. } => vec![network.to_string()],
        RuleError::NoPortsThere { instead, .. } => vec![instead.to_string()],
        RuleError::NotOfSelf => words("self tcp:self:8000 udp:self:5353"),
        RuleError::Blank { .. }
        | RuleError::TooManyParts { .. }
        | RuleError::UnknownProtocol { .. }
        | RuleError::ProtocolNumber { .. }
        | RuleError::NotAName { .. }
        | RuleError::NotV4 { .. }
        | RuleError::OpenBracket { .. }
        | RuleError::AfterBracket { .. }
        | RuleError::PrefixLength { .. }
        | RuleError::PortsMissing { .. }
        | RuleError::EmptyItem { .. }
        | RuleError::Port { .. }
        | RuleError::PortZero
        | RuleError::OpenRange { .. }
        | RuleError::ReversedRange { .. }
        | RuleError::DeniedSelf
        | RuleError::ManyAddresses { .. }
        | RuleError::ManyNames { .. }
        | RuleError::ManyPorts { .. } => Vec::new(),
    }
}

/// Checks what is advised for a text, and returns how many rules that is.
fn check(action: Action, text: &str) -> usize {
    let Err(error) = of_action(action, text) else {
        return 0;
    };
    let message = error.to_string();
    let rules = advised(&error);
    for rule in &rules {
        assert!(message.contains(rule), "{rule}: {message}");
        // Ports that are too many to be repeated.
        let rule = rule.replace(":PORTS", ":80");
        if let Err(refused) = of_action(action, &rule) {
            panic!("{action:?} {text:?}: {message}: {rule}: {refused}");
        }
    }
    rules.len()
}

#[test]
fn the_advice_on_bad_rules_is_accepted() {
    let bad = BAD.lines().chain([
        "icmp:80",
        "icmp:self:80",
        "icmp:selfs",
        "selfs",
        "icmp:example.com:80",
        "gre:*.example.com:80",
        "tcp:example.com",
        "db.localhost/24",
        "fe80::1:80%eth0",
        "icmp:fd00::1:53",
        "icmp:fd00::/8:53",
        "fd00::1:0",
        "fd00::/8:0",
        "https://self",
    ]);
    let mut counts = [0, 0];
    for text in bad {
        for (count, action) in counts.iter_mut().zip([Action::Allow, Action::Deny]) {
            *count += check(action, text);
        }
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn what_is_denied_by_name_is_advised_without_protocol_and_port() {
    for text in [
        "icmp:example.com:80",
        "tcp:example.com",
        "https://example.com/",
    ] {
        let error = of_action(Action::Deny, text).unwrap_err().to_string();
        assert!(error.ends_with("write example.com"), "{error}");
    }
    let error = of_action(Action::Allow, "icmp:example.com:80").unwrap_err();
    assert!(
        error.to_string().ends_with("write icmp:example.com"),
        "{error}"
    );
    let error = of_action(Action::Deny, "icmp:self:80");
    assert_eq!(error, Err(RuleError::DeniedSelf));
    let unknown = |action| of_action(action, "selfs").unwrap_err().to_string();
    assert!(unknown(Action::Allow).contains("did you mean self?"));
    assert!(!unknown(Action::Deny).contains("self,"));
}

#[test]
fn advice_is_never_cut() {
    let ports = (1..100).map(|port| format!("{}", port * 2));
    let ports = ports.collect::<Vec<_>>().join(",");
    for (text, advice) in [
        (format!("tcp:{ports}"), "tcp:any:PORTS"),
        (format!("fd00::1:{ports}"), "[fd00::1]:PORTS"),
    ] {
        let error = text.parse::<Match>().unwrap_err().to_string();
        assert!(error.contains(&format!("write {advice}")), "{error}");
        assert_eq!(check(Action::Deny, &text), 1);
    }
    let name = format!("{0}.{0}.example.org", "a".repeat(63));
    for text in [format!("https://{name}"), format!("tcp:{name}/24")] {
        assert_eq!(check(Action::Allow, &text), 1);
        assert_eq!(check(Action::Deny, &text), 1);
    }
}

proptest! {
    #[test]
    fn every_rule_that_an_error_advises_is_accepted_for_the_same_action(
        text in "((tcp|udp|icmp|any|gre|proto-4|dns|https|git[+]ssh|xyz)(:|://))?\
                 ([0-9a-f:./%\\[\\]]{0,12}|(fd00|fe80)::[0-9]{0,2}(%eth0)?(/[0-9]{1,3})?\
                 |host|self|slef|dns|localhost|[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?\
                 |::ffff:10[.]0[.]0[.][01](/[0-9]{1,3})?\
                 |(\\*\\.)?([a-z]{1,30}\\.){1,3}(org|localhost)(/[a-z0-9]{1,2})?)\
                 (:[0-9,-]{0,9})?/?",
        action in prop_oneof![Just(Action::Allow), Just(Action::Deny)],
    ) {
        check(action, &text);
    }
}
