//! The facts of this host that sets are made of: its addresses, its nameservers, and the NAT64 translators of its network.
//!
//! A fact is a type that implements [`fact::Fact`], in a file of its own, and a row of [`watcher::Watcher`].

pub mod addresses;
pub mod fact;
pub mod nameservers;
pub mod nat64;
pub mod subscription;
pub mod watcher;

use std::time::Duration;

use anyhow::Result;

use self::{
    addresses::{AddressError, HostAddresses},
    nameservers::{Nameservers, Unreadable},
    nat64::Translators,
};
use crate::{base::paths::Paths, policy::Sets};

/// How long a start, or a command that reads the facts once, waits for the nameservers to reveal NAT64 translators.
pub const NAT64_PATIENCE: Duration = Duration::from_millis(200);

/// The facts at one time.
#[derive(Debug)]
pub struct Here {
    /// The host's addresses.
    pub addresses: HostAddresses,
    /// Its nameservers.
    pub nameservers: Result<Nameservers, Unreadable>,
    /// The NAT64 translators of its network.
    pub nat64: Translators,
}

impl Here {
    /// Reads the facts once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the addresses cannot be read.
    pub async fn read(paths: &Paths) -> Result<Self, AddressError> {
        let addresses = addresses::read().await?;
        let nameservers = nameservers::read(&paths.resolv_conf);
        let nat64 = match &nameservers {
            Ok(found) => nat64::ask_once(&addresses.global_v6(), found, NAT64_PATIENCE).await,
            Err(_) => Translators::new(),
        };
        Ok(Self {
            addresses,
            nameservers,
            nat64,
        })
    }
}

/// Reads the members of the sets on this host once. Must be called within a tokio runtime.
///
/// # Errors
/// If a fact cannot be read.
pub async fn sets(paths: &Paths) -> Result<Sets> {
    let Here {
        addresses,
        nameservers,
        nat64,
    } = Here::read(paths).await?;
    let (nameservers, _) = nameservers?.admitted(&addresses.links);
    let HostAddresses { host, many, .. } = addresses;
    Ok(Sets {
        host,
        many,
        nameservers,
        nat64,
    })
}
