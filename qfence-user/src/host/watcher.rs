//! Follows each fact of the host once, for any number of subscribers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch;

use super::{
    addresses::{Addresses, gateways::Gateways},
    devices::FollowedDevices,
    host_file::FollowedFile,
    nameservers::ResolvConf,
    nat64::{Asked, Nat64},
    subscription::{Source, Subscription},
    workload::{FollowedWorkload, WorkloadNetwork},
};
use crate::base::paths::Paths;

/// Follows the facts of the host, from the first subscription to a fact until its last subscriber is gone. Each fact
/// has a task of its own, so that one that cannot be read does not delay another.
#[derive(Clone, Debug)]
pub struct Watcher {
    addresses: Source<Addresses>,
    nameservers: Source<ResolvConf>,
    nat64: Source<Nat64>,
    asked: Asked,
    gateways: Source<Gateways>,
    file: Source<FollowedFile>,
    devices: Source<FollowedDevices>,
    /// The network of the workload that the fence is attached to, and its addresses.
    workload: Option<(WorkloadNetwork, Source<FollowedWorkload>)>,
    resolv_conf: PathBuf,
}

impl Watcher {
    /// A watcher of the facts in the files that `paths` names. It follows nothing yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        let resolv_conf = paths.resolv_conf.clone();
        let host_file = paths.host_file.clone();
        let addresses = Source::new(Addresses::default);
        let nameservers = Source::new(move || ResolvConf::new(&resolv_conf));
        let (asks, asked) = watch::channel(None);
        let nat64 = {
            let asks = Arc::new(asks);
            let (addresses, nameservers) = (addresses.clone(), nameservers.clone());
            Source::new(move || Nat64::new(&addresses, &nameservers, &asks))
        };
        Self {
            addresses,
            nameservers,
            nat64,
            asked,
            gateways: Source::new(Gateways::default),
            file: Source::new(move || FollowedFile::new(&host_file)),
            devices: Source::new(FollowedDevices::default),
            workload: None,
            resolv_conf: paths.resolv_conf.clone(),
        }
    }

    /// Also follows the network of a workload.
    #[must_use]
    pub fn with_workload(mut self, network: WorkloadNetwork) -> Self {
        let namespaces = Arc::clone(&network.namespaces);
        let source = Source::new(move || FollowedWorkload::new(Arc::clone(&namespaces)));
        self.workload = Some((network, source));
        self
    }

    /// The network of the workload.
    #[must_use]
    pub fn workload(&self) -> Option<&WorkloadNetwork> {
        self.workload.as_ref().map(|(network, _)| network)
    }

    /// Follows the addresses of the workload's network namespaces, if there is one. Must be called within a tokio runtime.
    #[must_use]
    pub fn workload_addresses(&self) -> Option<Subscription<FollowedWorkload>> {
        self.workload.as_ref().map(|(_, source)| source.subscribe())
    }

    /// Follows the addresses of this thread's network namespace. Must be called within a tokio runtime.
    #[must_use]
    pub fn addresses(&self) -> Subscription<Addresses> {
        self.addresses.subscribe()
    }

    /// Follows the nameservers. Must be called within a tokio runtime.
    #[must_use]
    pub fn nameservers(&self) -> Subscription<ResolvConf> {
        self.nameservers.subscribe()
    }

    /// Follows the prefixes of NAT64 translators. Must be called within a tokio runtime.
    #[must_use]
    pub fn nat64(&self) -> Subscription<Nat64> {
        self.nat64.subscribe()
    }

    /// When the nameservers were last asked for translators.
    #[must_use]
    pub fn asked_for_nat64(&self) -> Asked {
        self.asked.clone()
    }

    /// Follows the gateways of the default routes. Must be called within a tokio runtime.
    #[must_use]
    pub fn gateways(&self) -> Subscription<Gateways> {
        self.gateways.subscribe()
    }

    /// Follows the file of further addresses of the host. Must be called within a tokio runtime.
    #[must_use]
    pub fn file(&self) -> Subscription<FollowedFile> {
        self.file.subscribe()
    }

    /// Follows the network devices of this thread's network namespace. Must be called within a tokio runtime.
    #[must_use]
    pub fn devices(&self) -> Subscription<FollowedDevices> {
        self.devices.subscribe()
    }

    /// The file of the nameservers.
    #[must_use]
    pub fn resolv_conf(&self) -> &Path {
        &self.resolv_conf
    }
}
