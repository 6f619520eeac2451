//! A question about one destination.

use std::net::IpAddr;

use super::{destination::one_address, error::RuleError};
use crate::policy::{
    protocol::Proto,
    rule::{Destination, Match},
};

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

pub(super) fn parse(text: &str) -> Result<Query, RuleError> {
    let Match {
        protocol,
        destination,
        ports,
    } = text.parse()?;
    let address = match destination {
        Destination::Prefix(prefix) => one_address(prefix),
        Destination::Set(_) => None,
    };
    let port = ports.single();
    match address {
        None => Err(RuleError::ManyAddresses { destination }),
        Some(_) if !ports.is_every() && port.is_none() => Err(RuleError::ManyPorts { ports }),
        Some(address) => Ok(Query {
            protocol: (protocol != Proto::Any).then_some(protocol),
            address,
            port,
        }),
    }
}
