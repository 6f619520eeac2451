//! The facts of this host that sets are made of: its addresses, nameservers and gateways, the NAT64 translators of its
//! network, and the administrator's file.
//!
//! A fact is a type that implements [`fact::Fact`], in a file of its own, and a row of [`watcher::Watcher`].

pub mod addresses;
pub mod devices;
pub mod fact;
pub mod host_file;
pub mod listening;
pub mod nameservers;
pub mod nat64;
pub mod subscription;
pub mod unix_listeners;
pub mod watcher;
pub mod workload;
mod writing;

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use self::{
    addresses::HostAddresses,
    nameservers::{Nameservers, Unreadable},
    nat64::{Revealed, Translators},
};
use crate::{
    base::paths::Paths,
    policy::{Prefix, Sets, profile::host_file::HostFile, rule::without_v4},
};

/// How long a start, or a command that reads the facts once, waits for the nameservers to reveal NAT64 translators.
pub const NAT64_PATIENCE: Duration = Duration::from_millis(200);

/// The facts at one time.
#[derive(Debug)]
pub struct Here {
    /// The host's addresses.
    pub addresses: HostAddresses,
    /// Its nameservers.
    pub nameservers: Result<Nameservers, Unreadable>,
    /// The gateways of its default routes.
    pub gateways: BTreeSet<Prefix>,
    /// The NAT64 translators of its network.
    pub nat64: Revealed,
    /// The administrator's file.
    pub file: HostFile,
}

impl Here {
    /// Reads the facts once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a fact other than the nameservers cannot be read.
    pub async fn read(paths: &Paths) -> Result<Self> {
        let file = HostFile::read(&paths.host_file)?;
        let mut here = Self::read_with(file, paths).await?;
        if let (None, Ok(found)) = (&here.file.nat64, &here.nameservers) {
            let global = here.addresses.global_v6();
            here.nat64 = nat64::ask_once(&global, found, NAT64_PATIENCE).await;
        }
        Ok(here)
    }

    /// The same with this file, and without the translators that nameservers reveal: no other computer is waited for.
    ///
    /// # Errors
    /// As above.
    pub async fn read_with(file: HostFile, paths: &Paths) -> Result<Self> {
        let addresses = addresses::read().await?;
        let gateways = addresses::gateways::read().await?;
        let nat64 = file.nat64.clone().map(Revealed::complete);
        Ok(Self {
            addresses,
            nameservers: nameservers::read(&paths.resolv_conf),
            gateways,
            nat64: nat64.unwrap_or_default(),
            file,
        })
    }

    /// The members of the sets, without the nameservers. `known` are the translators that were known before: they stay as
    /// long as nameservers do not answer.
    #[must_use]
    pub fn sets(&self, known: Translators) -> Sets {
        let mut nat64 = known;
        self.nat64.clone().put_in_place_of(&mut nat64);
        Sets {
            host: host_with(&self.addresses.host, &self.file, &self.gateways),
            many: self.addresses.many.clone(),
            nameservers: BTreeSet::new(),
            gateways: self.gateways.clone(),
            nat64,
            pod: BTreeSet::new(),
        }
    }
}

/// The set `host`: the addresses of the kernel, and those that the administrator's file adds.
#[must_use]
pub fn host_with(
    kernel: &BTreeSet<Prefix>,
    file: &HostFile,
    gateways: &BTreeSet<Prefix>,
) -> BTreeSet<Prefix> {
    let named = file.host.iter().copied().flat_map(without_v4);
    let gateways = gateways.iter().copied().filter(|_| file.gateway);
    kernel
        .iter()
        .copied()
        .chain(named)
        .chain(gateways)
        .collect()
}

/// Reads the members of the sets on this host once. Must be called within a tokio runtime.
///
/// # Errors
/// If a fact cannot be read.
pub async fn sets(paths: &Paths) -> Result<Sets> {
    let here = Here::read(paths).await?;
    let mut sets = here.sets(Translators::new());
    sets.nameservers = here.nameservers?.admitted(&here.addresses.links).0;
    Ok(sets)
}
