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
    resolved::{GRANTS, Grant, RESOLVED, Resolved},
};

use super::{
    hash::{get, keys, remove},
    maps::{directory, pinned},
};
use crate::base::clock::since_boot;

/// For how long use makes an address last while nobody resolves names.
const WITHOUT_RESOLVER: Duration = Duration::from_hours(1);

/// How much of that may pass before [`Addresses::sweep`] writes the end anew. Each write can lose the note of a use that a
/// program makes at the same moment.
const RENEWED_AFTER: Duration = Duration::from_mins(10);

/// An address whose end is nearer is not written anew: it is over before it is used again, or its next use moves the end.
const NEAR: Duration = Duration::from_secs(2);

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

    /// Puts grants of an address in force, beside those that are. Use makes it last longer than `lasts`. When this returns, the
    /// programs see it.
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
    /// If the map cannot be read or written.
    pub fn retain(&mut self, mut keep: impl FnMut(IpAddr, Grant) -> bool) -> Result<()> {
        for (address, entry) in self.list()? {
            let before = granted(&entry);
            let mut after = before.clone();
            after.retain(|grant| keep(address, *grant));
            if after.is_empty() {
                self.remove(address)?;
            } else if after != before
                && let Some(grants) = packed(&after)
            {
                self.write(address, Resolved { grants, ..entry })?;
            }
        }
        Ok(())
    }

    /// Removes the addresses that are over, and lets use prolong the others for another hour. `now_ns` is the time since boot.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn sweep(&mut self, now_ns: u64) -> Result<()> {
        for (address, entry) in self.list()? {
            if entry.is_over(now_ns) {
                self.remove(address)?;
            } else if let Some(entry) = renewed(entry, now_ns) {
                self.write(address, entry)?;
            }
        }
        Ok(())
    }

    /// Replaces an entry, or adds it.
    pub(super) fn write(&mut self, address: IpAddr, entry: Resolved) -> Result<()> {
        let written = self.0.insert(key(address), entry, 0);
        written.context("cannot change the address of a name")
    }
}

/// The entry with the grants of another one that is in force, and with these. `None` if there are too many.
fn merged(
    before: Option<Resolved>,
    grants: &[Grant],
    lasts: Duration,
    now_ns: u64,
) -> Option<Resolved> {
    let mut all = before.as_ref().map(granted).unwrap_or_default();
    for grant in grants {
        if *grant != Grant::NONE && !all.contains(grant) {
            all.push(*grant);
        }
    }
    let expires_ns = after(now_ns, lasts);
    let until_ns = after(now_ns, lasts.max(WITHOUT_RESOLVER));
    Some(Resolved {
        expires_ns: before.map_or(expires_ns, |before| before.expires_ns.max(expires_ns)),
        until_ns: before.map_or(until_ns, |before| before.until_ns.max(until_ns)),
        grants: packed(&all)?,
    })
}

/// The entry with an end that is moved, if it is worth a write.
fn renewed(entry: Resolved, now_ns: u64) -> Option<Resolved> {
    let until_ns = after(now_ns, WITHOUT_RESOLVER);
    let is_due = entry.until_ns < after(now_ns, WITHOUT_RESOLVER.saturating_sub(RENEWED_AFTER));
    let is_near = entry.expires_ns < after(now_ns, NEAR);
    (is_due && !is_near).then_some(Resolved { until_ns, ..entry })
}

fn after(now_ns: u64, time: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The grants of an entry.
fn granted(entry: &Resolved) -> Vec<Grant> {
    let grants = entry.grants.into_iter();
    grants.take_while(|grant| *grant != Grant::NONE).collect()
}

/// Grants without gaps. `None` if there are too many.
fn packed(grants: &[Grant]) -> Option<[Grant; GRANTS]> {
    let mut all = [Grant::NONE; GRANTS];
    all.get_mut(..grants.len())?.copy_from_slice(grants);
    Some(all)
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

    const NOW: u64 = 1_000_000_000_000;
    const MINUTE: Duration = Duration::from_mins(1);

    fn grant(rule: u32) -> Grant {
        Grant::new(rule, 0).unwrap()
    }

    #[test]
    fn grants_are_added_to_those_in_force_and_nothing_is_shortened() {
        let one = merged(None, &[grant(1)], MINUTE, NOW).unwrap();
        assert_eq!(granted(&one), [grant(1)]);
        assert_eq!(one.expires_ns, after(NOW, MINUTE));
        assert_eq!(one.until_ns, after(NOW, WITHOUT_RESOLVER));
        let two = merged(Some(one), &[grant(2), grant(1)], Duration::ZERO, NOW).unwrap();
        assert_eq!(granted(&two), [grant(1), grant(2)]);
        assert_eq!(two.expires_ns, one.expires_ns);
        let longer = merged(Some(two), &[grant(1)], 2 * WITHOUT_RESOLVER, NOW).unwrap();
        assert_eq!(longer.expires_ns, after(NOW, 2 * WITHOUT_RESOLVER));
        assert_eq!(longer.until_ns, longer.expires_ns);
    }

    #[test]
    fn an_address_has_no_more_grants_than_fit() {
        let rules = u32::try_from(GRANTS).unwrap();
        let most: Vec<_> = (0..rules).map(grant).collect();
        let full = merged(None, &most, MINUTE, NOW).unwrap();
        assert_eq!(granted(&full), most);
        assert!(merged(Some(full), &most, MINUTE, NOW).is_some());
        assert_eq!(merged(Some(full), &[grant(rules)], MINUTE, NOW), None);
    }

    #[test]
    fn an_end_is_moved_seldom_and_not_when_it_is_near() {
        let entry = merged(None, &[grant(1)], MINUTE, NOW).unwrap();
        assert_eq!(renewed(entry, NOW), None);
        let later = after(NOW, RENEWED_AFTER) + 1;
        let used = Resolved {
            expires_ns: after(later, MINUTE),
            ..entry
        };
        let until_ns = after(later, WITHOUT_RESOLVER);
        assert_eq!(renewed(used, later), Some(Resolved { until_ns, ..used }));
        let near = Resolved {
            expires_ns: later + 1,
            ..entry
        };
        assert_eq!(renewed(near, later), None);
    }

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
