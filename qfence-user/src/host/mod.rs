//! The facts of this host that sets are made of: its addresses and its nameservers.
//!
//! A fact is a type that implements [`fact::Fact`], in a file of its own, and a row of [`watcher::Watcher`].

pub mod addresses;
pub mod fact;
pub mod nameservers;
pub mod subscription;
pub mod watcher;

use anyhow::Result;

use crate::{base::paths::Paths, policy::Sets};

/// Reads the members of the sets on this host once. Must be called within a tokio runtime.
///
/// # Errors
/// If a fact cannot be read.
pub async fn sets(paths: &Paths) -> Result<Sets> {
    let addresses = addresses::read().await?;
    Ok(Sets {
        host: addresses.host,
        many: addresses.many,
        nameservers: nameservers::read(&paths.resolv_conf)?.addresses,
    })
}
