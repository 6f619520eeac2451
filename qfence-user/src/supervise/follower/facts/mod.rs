//! The facts of the host that a policy depends on: its addresses, nameservers and gateways, the NAT64 translators of its
//! network, and the administrator's file.

mod members;

use std::{future::pending, sync::Arc};

use anyhow::{Error, Result, anyhow};

use crate::{
    host::{
        addresses::{AddressError, Addresses, HostAddresses, gateways::Gateways},
        devices::FollowedDevices,
        fact::Fact,
        host_file::FollowedFile,
        nameservers::ResolvConf,
        nat64::Nat64,
        subscription::{Subscription, Unknown},
        watcher::Watcher,
    },
    policy::{nameservers::Nameserver, profile::host_file::HostFile},
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
}

/// Waits for a change of a fact, if it is followed. Cancel-safe.
async fn change_of<F: Fact>(subscription: &mut Option<Subscription<F>>) {
    match subscription {
        Some(subscription) => subscription.changed().await,
        None => pending().await,
    }
}
