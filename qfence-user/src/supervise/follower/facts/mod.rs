//! The facts of the host that a policy depends on: its addresses, nameservers and gateways, the NAT64 translators of its
//! network, and the administrator's file.

mod followed;
mod members;

use std::{path::Path, sync::Arc};

use anyhow::{Error, Result, anyhow};
use futures_util::future::select_all;

use self::followed::Followed;
use crate::{
    host::{
        addresses::{AddressError, Addresses, HostAddresses, gateways::Gateways},
        devices::FollowedDevices,
        host_file::FollowedFile,
        nameservers::ResolvConf,
        nat64::Nat64,
        subscription::{Subscription, Unknown},
        watcher::Watcher,
        workload::FollowedWorkload,
    },
    policy::{nameservers::Nameserver, profile::host_file::HostFile},
    stored_policy::StoredWorkload,
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
    /// The names of the network devices at which the host may answer questions to nameservers.
    pub(super) device_names: Vec<String>,
    /// The addresses of the workload; `None` for a fence that is not attached to one.
    workload: Option<Subscription<FollowedWorkload>>,
    /// The workload's network, as last known.
    pub(super) last_workload: Option<StoredWorkload>,
    file: Subscription<FollowedFile>,
    /// The content of the file, when it was last valid. `None` if it was not since this process follows it.
    last_file: Option<HostFile>,
    /// Whether there was a file with nameservers.
    has_seen_file: bool,
    /// The error, if the host's addresses are not followed.
    unfollowed: Option<Error>,
    /// The error, if the addresses of the workload are not known.
    unknown_workload: Option<Error>,
    /// The error, if a rule names nameservers and they are not known.
    unnamed: Option<Error>,
    /// The error, if the administrator's file cannot be read.
    bad_file: Option<Error>,
    /// The error, if gateways count and cannot be read.
    unrouted: Option<Error>,
    /// The nameservers that a rule cannot cover, since other links can have the same address.
    pub(super) ambiguous: Vec<Nameserver>,
}

impl Facts {
    /// Starts to follow the facts. `devices` are the names of the network devices at which the host may answer questions to
    /// nameservers. Must be called within a tokio runtime.
    pub(super) fn new(watcher: &Watcher, devices: Vec<String>) -> Self {
        Self {
            devices: (!devices.is_empty()).then(|| watcher.devices()),
            device_names: devices,
            workload: watcher.workload_addresses(),
            last_workload: None,
            unknown_workload: None,
            watcher: watcher.clone(),
            addresses: watcher.addresses(),
            nameservers: None,
            gateways: None,
            nat64: None,
            file: watcher.file(),
            last_file: None,
            has_seen_file: false,
            unfollowed: None,
            unnamed: None,
            bad_file: None,
            unrouted: None,
            ambiguous: Vec::new(),
        }
    }

    /// All facts. The first is the one whose readings are not awaited.
    fn all(&mut self) -> [&mut dyn Followed; 7] {
        [
            &mut self.nat64,
            &mut self.addresses,
            &mut self.nameservers,
            &mut self.gateways,
            &mut self.devices,
            &mut self.workload,
            &mut self.file,
        ]
    }

    /// Subscribes again to facts that are not followed any more.
    pub(super) fn subscribe_again(&mut self) {
        for fact in self.all() {
            fact.subscribe_again();
        }
    }

    /// Waits until a fact may have changed, or cannot be read any more. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        select_all(self.all().map(Followed::changed)).await;
    }

    /// Whether a fact was read after it was last used.
    pub(super) fn has_news(&mut self) -> bool {
        self.all().into_iter().any(|fact| fact.has_news())
    }

    /// Reads the facts again. [`Facts::sets_now`] handles errors. The translators are not awaited: they change only with
    /// the network, and another computer has to answer.
    pub(super) async fn refresh(&mut self) {
        let [_translators, others @ ..] = self.all();
        for fact in others {
            fact.refresh().await;
        }
    }

    /// The file of the nameservers.
    pub(super) fn nameservers_file(&self) -> &Path {
        self.watcher.resolv_conf()
    }

    /// Its path, to be printed.
    pub(super) fn resolv_conf(&self) -> std::path::Display<'_> {
        self.nameservers_file().display()
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

    /// The error, if the addresses of the workload are not known.
    pub(super) fn why_unknown_workload(&self) -> Result<()> {
        match &self.unknown_workload {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: calls to new addresses of the workload's own are not refused, only their packets; retrying"
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

    /// The error, if gateways count and cannot be read.
    pub(super) fn why_unrouted(&self) -> Result<()> {
        match &self.unrouted {
            None => Ok(()),
            Some(error) => Err(anyhow!(
                "error: {error:#}: the fence does not follow the host's gateways; retrying"
            )),
        }
    }
}
