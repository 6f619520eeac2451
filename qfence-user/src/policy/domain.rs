//! Names of the domain name system, in the form in which they are looked up and compared.

use std::{fmt, str::FromStr};

/// A name with at least two labels: lower case, without the dot at its end, each label in ASCII (an A-label, if it was
/// not).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Box<str>);

/// A destination by name: one name, or all names below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainPattern {
    /// The name.
    pub name: DomainName,
    /// Whether it is written `*.NAME`: the names below it, at any depth, and not the name itself.
    pub is_below: bool,
}

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAName {
    /// It has fewer than two labels.
    #[error("it has one label; a rule needs at least two, as in example.org")]
    OneLabel,
    /// A label is empty, too long, or has a character that names have not.
    #[error(
        "a label has 1 to 63 letters, digits, hyphens and underscores, with no hyphen at an end"
    )]
    Label,
    /// It is longer than the protocol allows.
    #[error("it is longer than 253 characters")]
    TooLong,
    /// Its last label is a number, as that of an address.
    #[error("its last label is a number, as that of an address")]
    Number,
    /// It cannot be converted to ASCII (UTS #46).
    #[error("it has characters that no international name has")]
    International,
}

/// The maximum number of characters of a name (RFC 1035, section 2.3.4, without the length of the first label and the
/// root).
const MAX_NAME: usize = 253;

/// The maximum number of characters of a label.
const MAX_LABEL: usize = 63;

impl DomainName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below another name, at any depth.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        let above = self.0.strip_suffix(other.as_str());
        above.is_some_and(|above| above.ends_with('.'))
    }

    /// The name whose service it is about, if it is written as `_http._tcp.NAME` (RFC 2782, RFC 8552).
    #[must_use]
    pub fn host_of_service(&self) -> Option<Self> {
        let mut host = &*self.0;
        while host.starts_with('_') {
            (_, host) = host.split_once('.')?;
        }
        (host.len() < self.0.len()).then(|| Self(host.into()))
    }

    /// Reads a name that came in a query or an answer, in ASCII and any case, with or without the dot at its end. Names of
    /// one label are names here too; what the protocol allows besides (any byte in a label) is none.
    ///
    /// # Errors
    /// If it is no name.
    pub fn of_wire(text: &str) -> Result<Self, NotAName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let name = text.to_ascii_lowercase();
        check(&name)?;
        Ok(Self(name.into()))
    }
}

impl FromStr for DomainName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| NotAName::International)?
        };
        check(&ascii)?;
        if !ascii.contains('.') {
            return Err(NotAName::OneLabel);
        }
        if ends_in_number(&ascii) {
            return Err(NotAName::Number);
        }
        Ok(Self(ascii.into()))
    }
}

/// Whether the last label is that of an IPv4 address, in any spelling, however wrong. No top-level domain begins with a digit.
pub(super) fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').find(|label| !label.is_empty());
    let numeric = |character: char| character.is_ascii_hexdigit() || matches!(character, 'x' | 'X');
    last.is_some_and(|last| {
        last.starts_with(|first: char| first.is_ascii_digit()) && last.chars().all(numeric)
    })
}

fn check(ascii: &str) -> Result<(), NotAName> {
    let is_label = |label: &str| {
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(of_name)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if ascii.len() > MAX_NAME {
        return Err(NotAName::TooLong);
    }
    if ascii.split('.').all(is_label) {
        Ok(())
    } else {
        Err(NotAName::Label)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl DomainPattern {
    /// Whether it matches a name.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        if self.is_below {
            name.is_below(&self.name)
        } else {
            *name == self.name
        }
    }
}

impl DomainPattern {
    /// Whether it matches every name that another one matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self.is_below, other.is_below) {
            (true, _) => other.name.is_below(&self.name) || self == other,
            (false, true) => false,
            (false, false) => self.name == other.name,
        }
    }
}

/// As in a rule: `example.org` or `*.example.org`.
impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_below {
            f.write_str("*.")?;
        }
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_in_lower_case_without_the_last_dot_and_in_ascii() {
        for (text, stored) in [
            ("github.com", "github.com"),
            ("GitHub.COM.", "github.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example.", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dns.resolver.arpa", "_dns.resolver.arpa"),
            ("3.de", "3.de"),
        ] {
            assert_eq!(name(text).as_str(), stored);
        }
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        let long_label = format!("{}.org", "a".repeat(64));
        let long = format!("{}org", "a.".repeat(126));
        for (text, error) in [
            ("github", NotAName::OneLabel),
            ("", NotAName::Label),
            (".", NotAName::Label),
            ("a..b", NotAName::Label),
            ("-a.org", NotAName::Label),
            ("a-.org", NotAName::Label),
            ("a b.org", NotAName::Label),
            ("*.org", NotAName::Label),
            (long_label.as_str(), NotAName::Label),
            (long.as_str(), NotAName::TooLong),
            ("a.1", NotAName::Number),
            ("192\u{3002}0\u{3002}2\u{3002}1", NotAName::Number),
            ("a.1\u{feff}", NotAName::Number),
        ] {
            assert_eq!(text.parse::<DomainName>(), Err(error), "{text:?}");
        }
        assert!("a\u{200b}\u{fffd}.org".parse::<DomainName>().is_err());
    }

    #[test]
    fn a_query_may_have_one_label() {
        assert_eq!(DomainName::of_wire("PRINTER.").unwrap().as_str(), "printer");
        assert_eq!(DomainName::of_wire("a b.org"), Err(NotAName::Label));
        assert_eq!(DomainName::of_wire("."), Err(NotAName::Label));
    }

    #[test]
    fn a_service_is_one_of_the_name_behind_it() {
        for (text, host) in [
            ("_http._tcp.deb.example", Some("deb.example")),
            ("_dmarc.example.org", Some("example.org")),
            ("a._tcp.example.org", None),
            ("example.org", None),
            ("_a._b", None),
        ] {
            let found = name(text).host_of_service();
            assert_eq!(found, host.map(name), "{text}");
        }
    }

    #[test]
    fn a_star_is_any_depth_and_not_the_name_itself() {
        let below = DomainPattern {
            name: name("github.com"),
            is_below: true,
        };
        let only = DomainPattern {
            is_below: false,
            ..below.clone()
        };
        for (text, is_below, is_it) in [
            ("github.com", false, true),
            ("api.github.com", true, false),
            ("a.b.github.com", true, false),
            ("notgithub.com", false, false),
            ("github.com.evil.org", false, false),
            ("com.com", false, false),
        ] {
            assert_eq!(below.matches(&name(text)), is_below, "{text}");
            assert_eq!(only.matches(&name(text)), is_it, "{text}");
        }
        assert_eq!(below.to_string(), "*.github.com");
        assert_eq!(only.to_string(), "github.com");
    }
}
