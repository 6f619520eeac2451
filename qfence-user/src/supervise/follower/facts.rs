//! The facts of the host that a policy depends on: its addresses, nameservers and gateways, the NAT64 translators of its
//! network, and the administrator's file.

use std::{collections::BTreeSet, future::pending, sync::Arc};

use anyhow::{Error, Result, anyhow};
use tokio::time::timeout;

use crate::{
    host::{
        NAT64_PATIENCE,
        addresses::{AddressError, Addresses, HostAddresses, gateways::Gateways},
        devices::FollowedDevices,
        fact::Fact,
        host_file::FollowedFile,
        host_with,
        nameservers::ResolvConf,
        nat64::Nat64,
        subscription::{Subscription, Unknown},
        watcher::Watcher,
    },
    policy::{
        Policy, Prefix, Sets, hostset::single, nameservers::Nameserver,
        profile::host_file::HostFile, set::SetName,
    },
};

/// The result of reading the host's addresses.
pub(super) type Reading = Result<Arc<HostAddresses>, Unknown<AddressError>>;

/// Subscriptions to the facts, and why they are not known.
pub(super) struct Facts {
    watcher: Watcher,
    pub(super) addresses: Subscription<Addresses>,
    /// `None` while no rule names nameservers.
    pub(super) nameservers: Option<Subscription<ResolvConf>>,
    /// `None` while no rule names gateways, and the file does not.
    gateways: Option<Subscription<Gateways>>,
    /// `None` while the file names the translators.
    nat64: Option<Subscription<Nat64>>,
    /// `None` for a fence without network devices.
    devices: Option<Subscription<FollowedDevices>>,
    /// The names of the fence's network devices.
    pub(super) device_names: Vec<String>,
    file: Subscription<FollowedFile>,
    /// The content of the file, when it was last valid.
    last_file: HostFile,
    /// Whether there was a file with nameservers.
    has_seen_file: bool,
    /// The error, if the host's addresses are not followed.
    unfollowed: Option<Error>,
    /// The error, if a rule names nameservers and they are not known.
    unnamed: Option<Error>,
    /// The error, if the administrator's file cannot be read.
    bad_file: Option<Error>,
    /// The nameservers that a rule cannot cover, since other links can have the same address.
    pub(super) ambiguous: Vec<Nameserver>,
}

impl Facts {
    /// Starts to follow the facts. `devices` are the names of the fence's network devices. Must be called within a tokio
    /// runtime.
    pub(super) fn new(watcher: &Watcher, devices: Vec<String>) -> Self {
        Self {
            devices: (!devices.is_empty()).then(|| watcher.devices()),
            device_names: devices,
            watcher: watcher.clone(),
            addresses: watcher.addresses(),
            nameservers: None,
            gateways: None,
            nat64: None,
            file: watcher.file(),
            last_file: HostFile::default(),
            has_seen_file: false,
            unfollowed: None,
            unnamed: None,
            bad_file: None,
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
        if let Some(nat64) = &mut self.nat64
            && !nat64.is_followed()
        {
            *nat64 = self.watcher.nat64();
        }
        if let Some(gateways) = &mut self.gateways
            && !gateways.is_followed()
        {
            *gateways = self.watcher.gateways();
        }
        if let Some(devices) = &mut self.devices
            && !devices.is_followed()
        {
            *devices = self.watcher.devices();
        }
        if !self.file.is_followed() {
            self.file = self.watcher.file();
        }
    }

    /// Waits until a fact may have changed, or cannot be read any more. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            () = self.addresses.changed() => (),
            () = change_of(&mut self.nameservers) => (),
            () = change_of(&mut self.nat64) => (),
            () = change_of(&mut self.gateways) => (),
            () = change_of(&mut self.devices) => (),
            () = self.file.changed() => (),
        }
    }

    /// Whether a fact was read after it was last used.
    pub(super) fn has_news(&self) -> bool {
        self.addresses.has_changed()
            || self.file.has_changed()
            || self.nat64.as_ref().is_some_and(Subscription::has_changed)
            || self.devices.as_ref().is_some_and(Subscription::has_changed)
            || self
                .gateways
                .as_ref()
                .is_some_and(Subscription::has_changed)
            || self
                .nameservers
                .as_ref()
                .is_some_and(Subscription::has_changed)
    }

    /// Reads the facts again. [`Facts::sets_now`] handles errors. The translators are not awaited: they change only with
    /// the network, and another computer has to answer.
    pub(super) async fn refresh(&mut self) {
        let _ = self.addresses.fresh().await;
        if let Some(nameservers) = &mut self.nameservers {
            let _ = nameservers.fresh().await;
        }
        if let Some(gateways) = &mut self.gateways {
            let _ = gateways.fresh().await;
        }
        if let Some(devices) = &mut self.devices {
            let _ = devices.fresh().await;
        }
        let _ = self.file.fresh().await;
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

    /// The error, if the administrator's file cannot be read.
    pub(super) fn why_bad_file(&self) -> Result<()> {
        match &self.bad_file {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: the further addresses of the host stay as they were: {error:#}"
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
        self.read_file(is_first).await?;
        let before = last.as_ref().map(|last| last.gateways.clone());
        let gateways = self.read_gateways(policy, before).await?;
        let mut sets = match (addresses, last) {
            (Ok(addresses), _) => {
                self.unfollowed = None;
                Sets {
                    host: host_with(&addresses.host, &self.last_file, &gateways),
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
        sets.gateways = gateways;
        self.read_translators(&mut sets, is_first).await;
        self.read_nameservers(&mut sets, policy, known.as_deref(), is_first)
            .await?;
        self.read_devices(&mut sets, policy, is_first).await?;
        Ok(sets)
    }

    /// Adds the host's addresses in the networks of the fence's devices to the nameservers: the host may answer their
    /// guests' questions. While the devices cannot be read there are none.
    async fn read_devices(
        &mut self,
        sets: &mut Sets,
        policy: &Policy,
        is_first: bool,
    ) -> Result<()> {
        let Some(devices) = self.devices.as_mut().filter(|_| policy.names_dns()) else {
            return Ok(());
        };
        match devices.reading().await {
            Ok(found) => {
                let gateways = found.gateways_of(&self.device_names);
                sets.nameservers.extend(gateways.into_iter().map(single));
                Ok(())
            }
            Err(error) if is_first => Err(error.into()),
            // The part of the supervisor that follows the devices reports it.
            Err(_) => Ok(()),
        }
    }

    /// Reads the administrator's file. If it becomes invalid, its last content stays.
    async fn read_file(&mut self, is_first: bool) -> Result<()> {
        self.bad_file = None;
        match self.file.reading().await {
            Ok(file) => self.last_file = (*file).clone(),
            Err(error) if is_first => return Err(error.into()),
            Err(error) => self.bad_file = Some(error.into()),
        }
        Ok(())
    }

    /// The gateways. From now on they are followed if `policy` or the file depends on them. `last` are those published
    /// last.
    async fn read_gateways(
        &mut self,
        policy: &Policy,
        last: Option<BTreeSet<Prefix>>,
    ) -> Result<BTreeSet<Prefix>> {
        if !policy.names(SetName::Gateway) && !self.last_file.gateway {
            self.gateways = None;
            return Ok(BTreeSet::new());
        }
        let watcher = &self.watcher;
        let gateways = self.gateways.get_or_insert_with(|| watcher.gateways());
        match (gateways.reading().await, last) {
            (Ok(found), _) => Ok((*found).clone()),
            (Err(_), Some(last)) => Ok(last),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Adds the NAT64 translators: those of the file, or else those that the nameservers reveal.
    async fn read_translators(&mut self, sets: &mut Sets, is_first: bool) {
        if let Some(known) = &self.last_file.nat64 {
            self.nat64 = None;
            sets.nat64.clone_from(known);
            return;
        }
        let watcher = &self.watcher;
        let nat64 = self.nat64.get_or_insert_with(|| watcher.nat64());
        if is_first {
            // Later, a reading is adopted when it comes.
            let _ = timeout(NAT64_PATIENCE, nat64.reading()).await;
        }
        if let Some(found) = nat64.latest() {
            sets.nat64.clone_from(&found);
        }
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

/// Waits for a change of a fact, if it is followed. Cancel-safe.
async fn change_of<F: Fact>(subscription: &mut Option<Subscription<F>>) {
    match subscription {
        Some(subscription) => subscription.changed().await,
        None => pending().await,
    }
}
