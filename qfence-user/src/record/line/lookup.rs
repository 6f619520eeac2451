//! A look-up of a name, as a record line reports it.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{base::printable::printable, policy::guard::Struck};

/// Look-ups of a name by the fence, since the last line about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// `denied`; `would-deny` in monitor mode; `allowed`; `struck`: allowed, but addresses were taken out of the answer;
    /// `failed`: no nameserver gave an answer; `full`: addresses were left out for which there was no room; or `error`:
    /// those that the kernel failed to put in force.
    pub verdict: String,
    /// The name; `None` if the line is about many names.
    pub name: Option<Arc<str>>,
    /// The type that was asked for: `A`, `AAAA`, …
    #[serde(rename = "type")]
    pub kind: Option<Arc<str>>,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The addresses that were taken out of the answer, because a name must not lead there.
    pub struck: Vec<Struck>,
    /// Why there is no answer, if it failed.
    #[serde(default)]
    pub error: Option<Arc<str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The comment of the rule in its profile.
    pub comment: Option<Arc<str>>,
    /// The number of look-ups that the line reports.
    pub lookups: u64,
    /// Whether an earlier line is about the same.
    #[serde(default)]
    pub again: bool,
}

/// `lookup evil.example A rule deny any`.
impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lookup", self.verdict)?;
        match &self.name {
            Some(name) => write!(f, " {}", printable(name.as_bytes()))?,
            None => f.write_str(" of other names")?,
        }
        if let Some(kind) = &self.kind {
            write!(f, " {}", printable(kind.as_bytes()))?;
        }
        let addresses = self.addresses.iter().map(ToString::to_string);
        let struck = self.struck.iter().map(|Struck { address, set }| {
            let set = printable(set.as_bytes());
            format!("{address} ({set})")
        });
        for (what, addresses) in [
            ("has", addresses.collect::<Vec<_>>()),
            ("without", struck.collect()),
        ] {
            if !addresses.is_empty() {
                write!(f, " {what} {}", addresses.join(","))?;
            }
        }
        if let Some(error) = &self.error {
            write!(f, " ({})", printable(error.as_bytes()))?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, " ({})", printable(comment.as_bytes()))?;
        }
        match (self.again, self.lookups) {
            (false, 1) => Ok(()),
            (false, many) => write!(f, " {many} times"),
            (true, count) => write!(f, " again {}", super::times(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_struck_and_why_and_whether_it_is_a_repeat() {
        let mut lookup = Lookup {
            verdict: "struck".to_owned(),
            name: Some("db.example.org".into()),
            kind: Some("A".into()),
            addresses: vec!["203.0.113.1".parse().unwrap()],
            struck: [("10.0.0.1", "lan"), ("127.0.0.1", "loopback")]
                .map(|(address, set)| Struck {
                    address: address.parse().unwrap(),
                    set: set.into(),
                })
                .into(),
            error: None,
            rule: Some("allow db.example.org".into()),
            comment: None,
            lookups: 1,
            again: false,
        };
        let begin = "struck lookup db.example.org A has 203.0.113.1 without 10.0.0.1 (lan),127.0.0.1 (loopback) rule \
                     allow db.example.org";
        assert_eq!(lookup.to_string(), begin);
        lookup.again = true;
        assert_eq!(lookup.to_string(), format!("{begin} again once"));
        lookup.lookups = 3;
        assert_eq!(lookup.to_string(), format!("{begin} again 3 times"));
        let failed = Lookup {
            verdict: "failed".to_owned(),
            addresses: Vec::new(),
            struck: Vec::new(),
            error: Some("no nameserver of the host answers".into()),
            rule: None,
            again: false,
            lookups: 1,
            ..lookup
        };
        assert_eq!(
            failed.to_string(),
            "failed lookup db.example.org A (no nameserver of the host answers)"
        );
    }
}
