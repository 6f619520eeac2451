//! The facts of the host that a policy depends on: its addresses, its nameservers, and the NAT64 translators of its
//! network.

use std::{future::pending, sync::Arc};

use anyhow::{Error, Result, anyhow};
use tokio::time::timeout;

use crate::{
    host::{
        NAT64_PATIENCE,
        addresses::{AddressError, Addresses, HostAddresses},
        nameservers::ResolvConf,
        nat64::Nat64,
        subscription::{Subscription, Unknown},
        watcher::Watcher,
    },
    policy::{Policy, Sets, nameservers::Nameserver},
};

/// The result of reading the host's addresses.
pub(super) type Reading = Result<Arc<HostAddresses>, Unknown<AddressError>>;

/// Subscriptions to the facts, and why they are not known.
pub(super) struct Facts {
    watcher: Watcher,
    pub(super) addresses: Subscription<Addresses>,
    /// `None` while no rule names nameservers.
    pub(super) nameservers: Option<Subscription<ResolvConf>>,
    nat64: Subscription<Nat64>,
    /// Whether there was a file with nameservers.
    has_seen_file: bool,
    /// The error, if the host's addresses are not followed.
    unfollowed: Option<Error>,
    /// The error, if a rule names nameservers and they are not known.
    unnamed: Option<Error>,
    /// The nameservers that a rule cannot cover, since other links can have the same address.
    pub(super) ambiguous: Vec<Nameserver>,
}

impl Facts {
    /// Starts to follow the facts. Must be called within a tokio runtime.
    pub(super) fn new(watcher: &Watcher) -> Self {
        Self {
            watcher: watcher.clone(),
            addresses: watcher.addresses(),
            nameservers: None,
            nat64: watcher.nat64(),
            has_seen_file: false,
            unfollowed: None,
            unnamed: None,
            ambiguous: Vec::new(),
        }
    }

    /// Subscribes again to facts that are not followed any more.
    pub(super) fn subscribe_again(&mut self) {
        if !self.addresses.is_followed() {
            self.addresses = self.watcher.addresses();
        }
        if let Some(nameservers) = &mut self.nameservers
            && !nameservers.is_followed()
        {
            *nameservers = self.watcher.nameservers();
        }
        if !self.nat64.is_followed() {
            self.nat64 = self.watcher.nat64();
        }
    }

    /// Waits until a fact may have changed, or cannot be read any more. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        let nameservers = async {
            match &mut self.nameservers {
                Some(nameservers) => nameservers.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.addresses.changed() => (),
            () = nameservers => (),
            () = self.nat64.changed() => (),
        }
    }

    /// Whether a fact was read after it was last used.
    pub(super) fn has_news(&self) -> bool {
        let nameservers = self.nameservers.as_ref();
        self.addresses.has_changed()
            || self.nat64.has_changed()
            || nameservers.is_some_and(Subscription::has_changed)
    }

    /// Reads the facts again. [`Facts::sets_now`] handles errors. The translators are not awaited: they change only with
    /// the network, and another computer has to answer.
    pub(super) async fn refresh(&mut self) {
        let _ = self.addresses.fresh().await;
        if let Some(nameservers) = &mut self.nameservers {
            let _ = nameservers.fresh().await;
        }
    }

    /// The path of resolv.conf, to be printed.
    pub(super) fn resolv_conf(&self) -> std::path::Display<'_> {
        self.watcher.resolv_conf().display()
    }

    /// The error, if the host's addresses are not followed.
    pub(super) fn why_unfollowed(&self) -> Result<()> {
        match &self.unfollowed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence does not follow the host's addresses; retrying"
            )),
        }
    }

    /// The error, if a rule names nameservers and they are not known.
    pub(super) fn why_unnamed(&self) -> Result<()> {
        match &self.unnamed {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "{error:#}: the exception for nameservers is suspended until the file can be read"
            )),
        }
    }

    /// The members of the sets, from the host's addresses. `last` are the members published last; for the first policy
    /// there are none, and a fact that cannot be read is an error.
    pub(super) async fn sets_now(
        &mut self,
        policy: &Policy,
        addresses: Reading,
        last: Option<Sets>,
    ) -> Result<Sets> {
        let is_first = last.is_none();
        let known = addresses.as_ref().ok().cloned();
        let mut sets = match (addresses, last) {
            (Ok(addresses), _) => {
                self.unfollowed = None;
                Sets {
                    host: addresses.host.clone(),
                    many: addresses.many.clone(),
                    ..Sets::default()
                }
            }
            (Err(error), Some(last)) => {
                self.unfollowed = Some(error.into());
                last
            }
            (Err(error), None) => return Err(error.into()),
        };
        if is_first {
            // Later, a reading is adopted when it comes.
            let _ = timeout(NAT64_PATIENCE, self.nat64.reading()).await;
        }
        if let Some(found) = self.nat64.latest() {
            sets.nat64.clone_from(&found);
        }
        self.read_nameservers(&mut sets, policy, known.as_deref(), is_first)
            .await?;
        Ok(sets)
    }

    /// Adds the nameservers. From now on they are followed if `policy` depends on them.
    async fn read_nameservers(
        &mut self,
        sets: &mut Sets,
        policy: &Policy,
        addresses: Option<&HostAddresses>,
        is_first: bool,
    ) -> Result<()> {
        self.unnamed = None;
        self.ambiguous.clear();
        let last = std::mem::take(&mut sets.nameservers);
        if !policy.names_dns() {
            self.nameservers = None;
            return Ok(());
        }
        let watcher = &self.watcher;
        let nameservers = self
            .nameservers
            .get_or_insert_with(|| watcher.nameservers());
        match nameservers.reading().await {
            Ok(found) => {
                if found.is_missing && self.has_seen_file {
                    let path = self.resolv_conf();
                    self.unnamed = Some(anyhow!("warning: {path} is gone"));
                }
                self.has_seen_file |= !found.is_missing;
                match addresses {
                    Some(addresses) => {
                        (sets.nameservers, self.ambiguous) = found.admitted(&addresses.links);
                    }
                    // The links are unknown, so no nameserver is added.
                    None => {
                        let all = found.servers.iter().flat_map(Nameserver::prefixes);
                        sets.nameservers = all.filter(|prefix| last.contains(prefix)).collect();
                    }
                }
                Ok(())
            }
            Err(error) if is_first => Err(error.into()),
            Err(error) => {
                self.has_seen_file = true;
                self.unnamed = Some(Error::from(error).context("error"));
                Ok(())
            }
        }
    }
}
