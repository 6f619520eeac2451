//! A question about one destination.

use std::net::IpAddr;

use super::{destination::one_address, error::RuleError};
use crate::policy::{
    domain::DomainName,
    protocol::Proto,
    rule::{Destination, Match},
};

/// A question about a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// By its address.
    Address(Query),
    /// By its name.
    Name {
        /// The name.
        name: DomainName,
        /// The protocol, if one was given.
        protocol: Option<Proto>,
        /// The port, if one was given.
        port: Option<u16>,
    },
}

/// One destination of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The protocol, if one was given.
    pub protocol: Option<Proto>,
    /// The address.
    pub address: IpAddr,
    /// The port, if one was given.
    pub port: Option<u16>,
}

pub(super) fn parse(text: &str) -> Result<Question, RuleError> {
    let Match {
        protocol,
        destination,
        ports,
    } = text.parse()?;
    let port = ports.single();
    let protocol = (protocol != Proto::Any).then_some(protocol);
    let question = match &destination {
        Destination::Prefix(prefix) => one_address(*prefix).map(|address| {
            Question::Address(Query {
                protocol,
                address,
                port,
            })
        }),
        Destination::Name(pattern) if !pattern.is_below => Some(Question::Name {
            name: pattern.name.clone(),
            protocol,
            port,
        }),
        Destination::Set(_) | Destination::Name(_) => None,
    };
    match question {
        None => Err(match destination {
            Destination::Name(pattern) => RuleError::ManyNames { pattern },
            destination => RuleError::ManyAddresses { destination },
        }),
        Some(_) if !ports.is_every() && port.is_none() => Err(RuleError::ManyPorts { ports }),
        Some(question) => Ok(question),
    }
}
