//! What was let through to a destination, as a record line reports it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use qfence_common::{Flow, Sighting};
use serde::{Deserialize, Serialize};

use crate::{
    base::printable::printable,
    policy::{names::RuleName, protocol::protocol_name},
    record::resolved_names::{ResolvedNames, write_names},
};

/// What was let through to a destination since the last line about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The destination; `None` for all that had no line of their own.
    #[serde(flatten)]
    pub destination: Destination,
    /// The number of allowed calls: connect(), and calls that send a datagram to an address.
    pub calls: u64,
    /// The number of packets to the destination.
    pub sent_packets: u64,
    /// Their bytes, with IP headers.
    pub sent_bytes: u64,
    /// The number of packets from the destination.
    pub received_packets: u64,
    /// Their bytes, with IP headers.
    pub received_bytes: u64,
}

/// A destination that was let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Destination {
    /// One destination.
    One {
        /// The protocol: `tcp`, `udp`, …, or its number.
        protocol: String,
        /// The address. A v4-mapped address is shown as IPv4.
        destination: IpAddr,
        /// The port; 0 if the protocol has no ports.
        port: u32,
        /// The names that led there, if the fence has a resolver.
        #[serde(default)]
        names: Vec<Arc<str>>,
        /// The rule that allowed the first call or packet.
        rule: Arc<str>,
        /// The comment of the rule in its profile.
        comment: Option<Arc<str>>,
    },
    /// Several destinations.
    Several {
        /// Their number; 0 if it is not known.
        destinations: u64,
    },
}

impl Allowed {
    /// What was let through to one destination.
    #[must_use]
    pub fn one(key: &Sighting, flow: &Flow, rule: RuleName, resolved: &ResolvedNames) -> Self {
        let address = Ipv6Addr::from(key.address.address()).to_canonical();
        let destination = Destination::One {
            protocol: protocol_name(key.protocol),
            destination: address,
            port: key.port,
            names: resolved.of(address),
            rule: rule.rule,
            comment: rule.comment,
        };
        Self::to(destination, flow)
    }

    /// What was let through to several destinations.
    #[must_use]
    pub fn several(destinations: u64, flow: &Flow) -> Self {
        Self::to(Destination::Several { destinations }, flow)
    }

    fn to(destination: Destination, flow: &Flow) -> Self {
        Self {
            destination,
            calls: flow.calls,
            sent_packets: flow.sent_packets,
            sent_bytes: flow.sent_bytes,
            received_packets: flow.received_packets,
            received_bytes: flow.received_bytes,
        }
    }
}

impl Allowed {
    /// As text, with the workload.
    pub(super) fn of<'a>(&'a self, workload: Option<&'a str>) -> impl fmt::Display + 'a {
        Told(self, workload)
    }
}

/// What was let through to a workload, as text.
struct Told<'a>(&'a Allowed, Option<&'a str>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(allowed, workload) = self;
        match &allowed.destination {
            Destination::One {
                protocol,
                destination,
                port,
                names,
                ..
            } => {
                let port = u16::try_from(*port).unwrap_or_default();
                write!(f, "{protocol} {}", SocketAddr::new(*destination, port))?;
                write_names(f, names)?;
            }
            Destination::Several { destinations: 0 } => f.write_str("other destinations")?,
            Destination::Several { destinations } => write!(f, "{destinations} destinations")?,
        }
        if let Some(workload) = workload {
            write!(f, " of {}", printable(workload.as_bytes()))?;
        }
        write!(
            f,
            " calls {} sent {} bytes received {} bytes",
            allowed.calls, allowed.sent_bytes, allowed.received_bytes
        )?;
        let Destination::One { rule, comment, .. } = &allowed.destination else {
            return Ok(());
        };
        write!(f, " rule {rule}")?;
        match comment {
            Some(comment) => write!(f, " ({})", printable(comment.as_bytes())),
            None => Ok(()),
        }
    }
}
