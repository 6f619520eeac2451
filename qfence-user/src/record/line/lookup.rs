//! A look-up of a name, as a record line reports it.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::base::printable::printable;

/// Look-ups of a name by the fence, since the last line about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// `denied`; `would-deny` in monitor mode; `allowed`; `struck`: allowed, but addresses were taken out of the answer; `full`:
    /// addresses were left out for which there was no room; or `error`: those that the kernel failed to put in force.
    pub verdict: String,
    /// The name; `None` if the line is about many names.
    pub name: Option<Arc<str>>,
    /// The type that was asked for: `A`, `AAAA`, …
    #[serde(rename = "type")]
    pub kind: Option<Arc<str>>,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// The addresses that were taken out of the answer, because a name must not lead there.
    pub struck: Vec<IpAddr>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// The comment of the rule in its profile.
    pub comment: Option<Arc<str>>,
    /// The number of look-ups that the line reports.
    pub lookups: u64,
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
        for (what, addresses) in [("has", &self.addresses), ("without", &self.struck)] {
            if let Some((first, rest)) = addresses.split_first() {
                write!(f, " {what} {first}")?;
                rest.iter()
                    .try_for_each(|address| write!(f, ",{address}"))?;
            }
        }
        if let Some(rule) = &self.rule {
            write!(f, " rule {rule}")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, " ({})", printable(comment.as_bytes()))?;
        }
        match self.lookups {
            1 => Ok(()),
            many => write!(f, " {many} times"),
        }
    }
}
