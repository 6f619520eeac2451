//! Follows each fact of the host once, for any number of subscribers.

use std::path::{Path, PathBuf};

use super::{
    addresses::Addresses,
    nameservers::ResolvConf,
    subscription::{Source, Subscription},
};
use crate::base::paths::Paths;

/// Follows the facts of the host, from the first subscription to a fact until its last subscriber is gone. Each fact
/// has a task of its own, so that one that cannot be read does not delay another.
#[derive(Clone, Debug)]
pub struct Watcher {
    addresses: Source<Addresses>,
    nameservers: Source<ResolvConf>,
    resolv_conf: PathBuf,
}

impl Watcher {
    /// A watcher of the facts in the files that `paths` names. It follows nothing yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        let resolv_conf = paths.resolv_conf.clone();
        Self {
            addresses: Source::new(Addresses::default),
            nameservers: Source::new(move || ResolvConf::new(&resolv_conf)),
            resolv_conf: paths.resolv_conf.clone(),
        }
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

    /// The file of the nameservers.
    #[must_use]
    pub fn resolv_conf(&self) -> &Path {
        &self.resolv_conf
    }
}
