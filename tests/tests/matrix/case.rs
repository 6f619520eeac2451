//! One case, and what is expected of it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Result, bail, ensure};
use qfence_user::probe::{Ending, ProbeResult, Step};
use tests::world::{SERVER_V4, SERVER_V6};

use super::table::SETS;

/// The port of the listeners.
pub(crate) const PORT: u16 = 8080;

/// The server on the internet, for IPv6 sockets that send IPv4.
const MAPPED_SERVER: IpAddr = IpAddr::V6(Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped());

/// By whom, in the fence, an attempt is made. Outside it is made likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// An unprivileged user.
    Nobody,
    /// The same, by a program that shares no code with qfence.
    Python,
    /// Root.
    Root,
    /// Root, in a fence that lets raw sockets be.
    RootRaw,
    /// Root makes the sockets, an unprivileged user uses them; in such a fence as well.
    RootMade,
    /// An unprivileged user, with sockets made in another network namespace.
    Annex,
    /// Root, with sockets made in another namespace, in a fence that lets raw sockets be.
    AnnexRaw,
}

/// What shows outside the fence that an attempt gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// A listener records it, or an answer comes back.
    Arrives,
    /// A capture sees it on this device.
    IsSeenOn(&'static str),
}

/// One attempt by somebody.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) who: Who,
    pub(crate) spec: String,
    pub(crate) control: Control,
    /// Where it goes first, and may.
    pub(crate) decoy: Option<IpAddr>,
    way: String,
    is_v6: bool,
}

/// The cases of a section.
pub(crate) fn cases(section: &'static str) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for row in section.lines().filter(|row| !row.is_empty()) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let [who, ways, to, with, control] = columns[..] else {
            bail!("not five columns: {row}");
        };
        let control = match control {
            "arrives" => Control::Arrives,
            device => Control::IsSeenOn(device),
        };
        for (way, to) in pairs(&words(ways), &words(to)) {
            for who in words(who) {
                cases.push(Case::new(Who::read(who)?, way, to, with, control));
            }
        }
    }
    ensure!(!cases.is_empty(), "a section without cases");
    Ok(cases)
}

/// The words of a column, sets resolved.
fn words(column: &'static str) -> Vec<&'static str> {
    let several = |word: &'static str| {
        let set = SETS.iter().find(|(name, _)| *name == word);
        set.map_or(word, |(_, words)| words).split_whitespace()
    };
    column.split_whitespace().flat_map(several).collect()
}

fn pairs<'a>(ways: &'a [&str], to: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    ways.iter()
        .flat_map(move |way| to.iter().map(move |to| (*way, *to)))
}

impl Who {
    fn read(word: &str) -> Result<Self> {
        Ok(match word {
            "nobody" => Self::Nobody,
            "python" => Self::Python,
            "root" => Self::Root,
            "root-raw" => Self::RootRaw,
            "root-made" => Self::RootMade,
            "annex" => Self::Annex,
            "annex-raw" => Self::AnnexRaw,
            _ => bail!("nobody is called {word}"),
        })
    }
}

impl Case {
    pub(crate) fn new(who: Who, way: &str, to: &str, with: &str, control: Control) -> Self {
        let has_port = !["ping", "raw-icmp", "raw-253"]
            .iter()
            .any(|without| way.starts_with(without));
        let port = if has_port {
            format!("/{PORT}")
        } else {
            String::new()
        };
        let has_decoy = way.ends_with("-elsewhere") || way.ends_with("-reconnected");
        let decoy = match has_decoy {
            false => None,
            true if to.starts_with("::ffff:") => Some(MAPPED_SERVER),
            true if to.contains(':') => Some(SERVER_V6),
            true => Some(SERVER_V4),
        };
        let last = decoy.map_or_else(String::new, |decoy| format!("+decoy={decoy}"));
        Self {
            who,
            spec: format!("{way}/{to}{port}{with}{last}"),
            control,
            decoy: decoy.map(|decoy| decoy.to_canonical()),
            way: way.to_owned(),
            is_v6: to.contains(':'),
        }
    }

    /// Whether an outcome is what a fence's refusal looks like, to somebody who can tell.
    pub(crate) fn is_refused(&self, outcome: &ProbeResult) -> bool {
        if self.may_not_be_made() {
            return outcome.failed_at(Step::Socket, "EPERM");
        }
        match outcome.ending {
            // By the hooks for calls, at once; or by the one for packets.
            Ending::Failed => [Step::Connect, Step::Send].into_iter().any(|step| {
                outcome.failed_at(step, "ECONNREFUSED")
                    || outcome.failed_at(step, "EPERM")
                    // The supervisor has ended a connection whose first packet was dropped.
                    || (outcome.failed_at(step, "ECONNABORTED") && self.way.contains("tcp"))
                    // A socket that may not broadcast: it was refused the option.
                    || (outcome.failed_at(step, "EACCES") && self.spec.contains("255"))
            }),
            // A SYN that is dropped is sent again until the connection is ended, which may take longer.
            Ending::Timeout => self.way.contains("tcp"),
            // Taking off a cork never fails (`udp_lib_setsockopt` in net/ipv4/udp.c), and neither
            // does a ping by IPv6 whose packet is dropped (`ping_v6_sendmsg` in net/ipv6/ping.c).
            Ending::Sent => {
                self.way.ends_with("-cork") || (self.way.starts_with("ping") && self.is_v6)
            }
            Ending::Reached | Ending::Unsupported | Ending::Unprivileged => false,
        }
    }

    /// Whether the fence refuses the very socket.
    fn may_not_be_made(&self) -> bool {
        let lets_be = matches!(self.who, Who::RootRaw | Who::RootMade | Who::AnnexRaw);
        (self.way.starts_with("raw-") || self.way.starts_with("udplite")) && !lets_be
    }
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {}", self.who, self.spec)
    }
}
