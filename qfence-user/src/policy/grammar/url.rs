//! Recognises URLs, which people paste where a rule is meant.

use super::error::RuleError;
use crate::policy::rule::Match;

/// The usual ports of schemes.
const PORTS: [(&str, u16); 6] = [
    ("https", 443),
    ("http", 80),
    ("ssh", 22),
    ("git", 9418),
    ("ftp", 21),
    ("postgres", 5432),
];

/// The error for a text that is a URL, with the rule that is meant; `None` if it is none.
pub(super) fn error(text: &str) -> Option<RuleError> {
    let (scheme, rest) = text.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = place.rsplit('@').next().unwrap_or_default();
    let usual = PORTS.iter().find(|(name, _)| *name == scheme);
    let has_port = place.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let meant = match usual {
        Some((_, port)) if !has_port => format!("tcp:{place}:{port}"),
        _ => format!("tcp:{place}"),
    };
    // A rule that is no rule itself is no advice.
    let instead = match meant.contains("://") || meant.parse::<Match>().is_err() {
        true => "the host and its port, as in tcp:example.org:443".to_owned(),
        false => meant,
    };
    Some(RuleError::Url {
        text: text.into(),
        instead,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(error("tcp:example.org:443"), None);
    }
}
