//! Recognises URLs, which people paste where a rule is meant.

use qfence_common::Action;

use super::error::RuleError;
use crate::policy::protocol::Proto;

/// The usual protocols and ports of schemes. DNS has UDP and TCP.
const USUAL: [(&str, Proto, u16); 20] = [
    ("https", Proto::TCP, 443),
    ("http", Proto::TCP, 80),
    ("wss", Proto::TCP, 443),
    ("ws", Proto::TCP, 80),
    ("ssh", Proto::TCP, 22),
    ("sftp", Proto::TCP, 22),
    ("git", Proto::TCP, 9418),
    ("ftp", Proto::TCP, 21),
    ("ftps", Proto::TCP, 990),
    ("rsync", Proto::TCP, 873),
    ("ldap", Proto::TCP, 389),
    ("ldaps", Proto::TCP, 636),
    ("mysql", Proto::TCP, 3306),
    ("postgres", Proto::TCP, 5432),
    ("postgresql", Proto::TCP, 5432),
    ("redis", Proto::TCP, 6379),
    ("mqtt", Proto::TCP, 1883),
    ("dns", Proto::Any, 53),
    ("ntp", Proto::UDP, 123),
    ("tftp", Proto::UDP, 69),
];

/// The error for a text that is a URL, with the rule of this action that is meant; `None` if it is none.
pub(super) fn error(action: Action, text: &str) -> Option<RuleError> {
    let (scheme, rest) = text.split_once("://")?;
    let generic = match action {
        Action::Allow => "the host and its port, as in tcp:example.org:443",
        Action::Deny => "the host alone, as in example.org",
    };
    Some(RuleError::Url {
        text: text.into(),
        instead: meant(action, scheme, rest).unwrap_or_else(|| generic.to_owned()),
    })
}

/// The rule that a URL means, if there is one.
fn meant(action: Action, scheme: &str, rest: &str) -> Option<String> {
    let place = rest.split(['/', '?', '#']).next()?;
    let place = place.rsplit('@').next()?;
    let scheme = scheme.to_ascii_lowercase();
    // As in `git+https` and `qemu+ssh`.
    let transport = scheme.rsplit('+').next()?;
    let usual = USUAL.iter().find(|(name, ..)| *name == transport);
    let (protocol, port) = match usual {
        Some((_, protocol, port)) => (*protocol, Some(*port)),
        None => (Proto::named(transport).unwrap_or(Proto::TCP), None),
    };
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let mut text = match protocol {
        Proto::Any => place.to_owned(),
        protocol => format!("{protocol}:{place}"),
    };
    if let Some(port) = port.filter(|_| !has_port) {
        text.push_str(&format!(":{port}"));
    }
    if text.contains("://") {
        return None;
    }
    // What is no rule itself is no advice.
    match super::of_action(action, &text) {
        Ok(_) => Some(text),
        Err(RuleError::DeniedNameWithPorts { name, .. }) => Some(name.to_string()),
        Err(RuleError::NoPortsThere { instead, .. }) => Some(instead.to_string()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{grammar::of_action, rule::Match};

    #[test]
    fn the_rule_that_a_url_means_is_told() {
        for (url, meant) in [
            (
                "https://github.com/rust-lang/cargo.git",
                "tcp:github.com:443",
            ),
            ("http://example.org", "tcp:example.org:80"),
            ("http://example.org:8080/?a=b", "tcp:example.org:8080"),
            ("ssh://git@github.com/a", "tcp:github.com:22"),
            ("https://[2001:db8::1]/", "tcp:[2001:db8::1]:443"),
            ("other://example.org", "tcp:example.org"),
            ("git+https://github.com/a/b.git", "tcp:github.com:443"),
            ("HTTPS://example.org", "tcp:example.org:443"),
            ("udp://192.0.2.1:53", "udp:192.0.2.1:53"),
            ("sctp://example.org:80", "sctp:example.org:80"),
            ("icmp://192.0.2.1", "icmp:192.0.2.1"),
            ("icmp://192.0.2.1:80", "icmp:192.0.2.1"),
            ("any://192.0.2.1", "192.0.2.1"),
            ("dns://192.0.2.1", "192.0.2.1:53"),
            ("dns://[2001:db8::1]:5353/", "[2001:db8::1]:5353"),
            ("ntp://time.example.org", "udp:time.example.org:123"),
        ] {
            let said = url.parse::<Match>().unwrap_err().to_string();
            assert!(
                said.ends_with(&format!("is a URL: write {meant}")),
                "{said}"
            );
            assert!(meant.parse::<Match>().is_ok());
        }
        for url in ["https://", "https://localhost/", "a://b://c", "tcp://://"] {
            let said = url.parse::<Match>().unwrap_err().to_string();
            assert!(said.ends_with("as in tcp:example.org:443"), "{said}");
        }
        assert_eq!(error(Action::Allow, "tcp:example.org:443"), None);
    }

    #[test]
    fn a_rule_that_denies_is_told_the_name_alone() {
        let said = |url| of_action(Action::Deny, url).unwrap_err().to_string();
        for (url, meant) in [
            ("https://github.com/rust-lang/cargo.git", "github.com"),
            ("http://*.example.org:8080", "*.example.org"),
            ("udp://example.org:53", "example.org"),
            ("other://example.org", "example.org"),
            // An address has protocol and port.
            ("https://[2001:db8::1]/", "tcp:[2001:db8::1]:443"),
            ("udp://192.0.2.1:53", "udp:192.0.2.1:53"),
            // No rule can deny these.
            ("https://", "the host alone, as in example.org"),
            ("https://self/", "the host alone, as in example.org"),
        ] {
            let said = said(url);
            assert!(
                said.ends_with(&format!("is a URL: write {meant}")),
                "{said}"
            );
        }
    }

    #[test]
    fn the_rule_of_a_long_name_is_told_whole() {
        let name = format!("{}.example.org", "a".repeat(63));
        let said = of_action(Action::Allow, &format!("https://{name}/a/b")).unwrap_err();
        let meant = format!("write tcp:{name}:443");
        assert!(said.to_string().ends_with(&meant), "{said}");
    }
}
