//! The addresses that rules by name allow: see [`qfence_common::resolved`].
//!
//! One process writes them, the one that resolves names. Others read them, and remove those that a change of the policy no
//! longer allows.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use nix::errno::Errno;
use qfence_common::{
    Halves, abi,
    address::from_v4,
    resolved::{Grant, RESOLVED, Resolved},
};

use super::{
    granted::{covers, granted, merged, packed, renewed},
    hash::{get, keys, remove, replace},
    maps::{directory, pinned},
};
use crate::base::clock::since_boot;

/// Why an address was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum NotPut {
    /// There is no room, for the address or for its grants.
    #[error("there is no room for more addresses of names")]
    Full,
    /// The kernel failed to.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// The addresses of one fence.
pub struct Addresses(HashMap<MapData, Halves, Resolved>);

impl Addresses {
    /// The addresses of the fence whose links are in `pins`.
    ///
    /// # Errors
    /// If the map does not exist, or belongs to another version.
    pub fn open(pins: &Path) -> Result<Self> {
        let map = pinned(&directory(pins)?, abi::RESOLVED_MAP)?;
        Ok(Self(map.try_into()?))
    }

    /// Puts grants of an address in force, beside those that are. It lasts for `lasts`, or up to a second less if it was in
    /// force already. Use makes it last longer. When this returns, the programs see it.
    ///
    /// # Errors
    /// If there is no room, or the kernel fails to. Nothing has changed then.
    pub fn put(
        &mut self,
        address: IpAddr,
        grants: &[Grant],
        lasts: Duration,
    ) -> Result<(), NotPut> {
        let now = since_boot()?;
        let key = key(address);
        let before = get(&self.0, &key)?.filter(|before: &Resolved| !before.is_over(now));
        let entry = merged(before, grants, lasts, now).ok_or(NotPut::Full)?;
        if before.is_some_and(|before| covers(&before, &entry, now)) {
            return Ok(());
        }
        self.0.insert(key, entry, 0).map_err(|error| match error {
            MapError::SyscallError(error)
                if error.io_error.raw_os_error() == Some(Errno::E2BIG as i32) =>
            {
                NotPut::Full
            }
            error => anyhow::Error::from(error)
                .context("cannot put the address of a name in force")
                .into(),
        })
    }

    /// All addresses, in order. Some may be over.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn list(&self) -> Result<Vec<(IpAddr, Resolved)>> {
        let mut entries = Vec::new();
        for key in keys(&self.0, RESOLVED)? {
            if let Some(entry) = get(&self.0, &key)? {
                entries.push((address(key), entry));
            }
        }
        entries.sort_unstable_by_key(|(address, _)| *address);
        entries.dedup_by_key(|(address, _)| *address);
        Ok(entries)
    }

    /// Removes an address. A missing one is no error.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn remove(&mut self, address: IpAddr) -> Result<()> {
        remove(&mut self.0, &key(address))
    }

    /// Removes the grants for which `keep` returns false, and addresses without grants.
    ///
    /// # Errors
    /// If the map cannot be read, or an address cannot be written. The others are changed all the same.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr, Grant) -> bool) -> Result<()> {
        let mut result = Ok(());
        for (address, entry) in self.list()? {
            let before = granted(&entry);
            let mut after = before.clone();
            after.retain(|grant| keep(address, *grant));
            let changed = if after.is_empty() {
                self.remove(address)
            } else if after != before
                && let Some(grants) = packed(&after)
            {
                self.replace(address, Resolved { grants, ..entry })
            } else {
                Ok(())
            };
            result = result.and(changed);
        }
        result
    }

    /// Removes the addresses that are over, and lets use prolong the others for another hour. `now_ns` is the time since boot.
    /// `ended` gets each address that is removed, and since when it is over.
    ///
    /// # Errors
    /// If the map cannot be read, or an address cannot be written. The others are changed all the same.
    pub fn sweep(&mut self, now_ns: u64, mut ended: impl FnMut(IpAddr, u64)) -> Result<()> {
        let mut result = Ok(());
        for (address, entry) in self.list()? {
            let changed = if entry.is_over(now_ns) {
                ended(address, entry.expires_ns.min(entry.until_ns));
                self.remove(address)
            } else if let Some(entry) = renewed(entry, now_ns) {
                self.replace(address, entry)
            } else {
                Ok(())
            };
            result = result.and(changed);
        }
        result
    }

    /// Replaces an entry. One that another process has removed meanwhile stays removed.
    fn replace(&mut self, address: IpAddr, entry: Resolved) -> Result<()> {
        let replaced = replace(&mut self.0, &key(address), &entry);
        replaced.context("cannot change the address of a name")
    }

    /// Replaces an entry, or adds it.
    #[cfg(test)]
    pub(super) fn write(&mut self, address: IpAddr, entry: Resolved) -> Result<()> {
        let written = self.0.insert(key(address), entry, 0);
        written.context("cannot change the address of a name")
    }
}

/// The key of an address. A v4-mapped address is that of IPv4.
fn key(address: IpAddr) -> Halves {
    Halves::of(match address {
        IpAddr::V4(v4) => from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    })
}

/// The address of a key.
fn address(key: Halves) -> IpAddr {
    IpAddr::from(Ipv6Addr::from(key.address())).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_has_the_key_of_its_own() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let given: IpAddr = text.parse().unwrap();
            assert_eq!(address(key(given)), given);
        }
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(key(mapped), key("192.0.2.1".parse().unwrap()));
    }
}
