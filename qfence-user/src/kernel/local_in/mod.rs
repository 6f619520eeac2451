//! The second layer for frames of guests: a program that judges what the host receives for itself
//! (`NF_INET_LOCAL_IN`, Linux 6.4). A network namespace has a pair of its links, for IPv4 and IPv6. The pair is made with
//! the first fence that has devices there, and removed with the last.
//!
//! A pinned link keeps its network namespace alive, so the pins must not outlive the fences. Who makes or removes a pair, or
//! a member, has the lock on the directory of all pairs.
//!
//! | file | its job |
//! |---|---|
//! | `place` | the directories in bpffs, and who is in them |
//! | `pair` | makes and removes a pair |
//! | `link` | links of netfilter |
//! | `nft` | a table of nftables in their place, before Linux 6.4 |
//! | `maps` | the maps of a pair |
//! | `membership` | what a fence has in a pair |

mod link;
mod maps;
mod membership;
mod nft;
mod pair;
mod place;
#[cfg(test)]
mod tests;

use std::{os::fd::BorrowedFd, path::Path};

use anyhow::{Context as _, Result, ensure};
pub use membership::{Drained, Drop, Membership};
use qfence_common::frame;

use self::{maps::Maps, place::Place};
use super::{bpffs::make_parent, helpers, within::apart};

/// What judges the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A pair of links of netfilter (Linux 6.4).
    Links,
    /// A table of nftables.
    Nft,
}

impl Method {
    /// That of this kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        if helpers::can_judge_packets_of_netfilter() {
            Self::Links
        } else {
            Self::Nft
        }
    }
}

/// Makes a fence a member of a network namespace (the caller's for `None`). `bpffs` is the mount point of bpffs, and `run`
/// the directory of the files that cache facts about this kernel.
///
/// # Errors
/// If the kernel has no such programs, or a pair of another version is there.
pub fn join(
    bpffs: &Path,
    run: &Path,
    netns: Option<BorrowedFd<'_>>,
    fence: &str,
) -> Result<Membership> {
    join_by(Method::of_this_kernel(), bpffs, run, netns, fence)
}

fn join_by(
    method: Method,
    bpffs: &Path,
    run: &Path,
    netns: Option<BorrowedFd<'_>>,
    fence: &str,
) -> Result<Membership> {
    let place = Place::of(bpffs, netns)?;
    make_parent(place.parent())?;
    let _lock = place::lock(place.parent())?;
    try_join(method, bpffs, &place, run, netns, fence)
        .context("cannot judge what the host receives from the guests of network devices")
}

fn try_join(
    method: Method,
    bpffs: &Path,
    place: &Place,
    run: &Path,
    netns: Option<BorrowedFd<'_>>,
    fence: &str,
) -> Result<Membership> {
    let slot = free_slot(bpffs, fence)?;
    let mut maps = match pair::open(place, netns)? {
        Some(maps) => maps,
        None => pair::make(method, place, run, netns)?,
    };
    if let Err(error) = maps.add(slot, fence) {
        // A pair without members would remain.
        let _ = pair::remove_if_empty(place, &maps);
        return Err(error);
    }
    Membership::new(place.clone(), maps, slot, netns)
}

/// Tries what judges the packets, in a network namespace of its own: loads the program and attaches it, or makes a table of
/// nftables. Nothing is left.
///
/// # Errors
/// If the kernel has neither.
pub fn attempt() -> Result<Method> {
    let method = Method::of_this_kernel();
    apart(|| match method {
        Method::Links => pair::attempt(),
        Method::Nft => nft::attempt(),
    })?;
    Ok(method)
}

/// What a fence has in a network namespace (the caller's for `None`); `None` if it is no member there.
///
/// # Errors
/// If it cannot be read.
pub fn open(
    bpffs: &Path,
    netns: Option<BorrowedFd<'_>>,
    fence: &str,
) -> Result<Option<Membership>> {
    let place = Place::of(bpffs, netns)?;
    let Some(maps) = pair::open(&place, netns)? else {
        return Ok(None);
    };
    let slot = maps.slot_of(fence)?;
    slot.map(|slot| Membership::new(place, maps, slot, netns))
        .transpose()
}

/// Removes a fence from all network namespaces, and the pairs whose last member it was. A fence that is no member is no
/// error.
///
/// # Errors
/// If something cannot be removed. Everything else is.
pub fn leave(bpffs: &Path, fence: &str) -> Result<()> {
    let _lock = place::lock(&place::parent(bpffs))?;
    let mut result = Ok(());
    for place in place::all(bpffs)? {
        result = result.and(leave_one(&place, fence));
    }
    result
}

fn leave_one(place: &Place, fence: &str) -> Result<()> {
    if pair::is_of_another_version(place)? {
        return Ok(());
    }
    let Some(mut maps) = pair::open_maps(place)? else {
        // It was being made, or removed.
        return pair::remove(place);
    };
    if let Some(slot) = maps.slot_of(fence)? {
        pair::remove_member(place, &mut maps, slot)?;
    }
    pair::remove_if_empty(place, &maps)
}

/// The names of the fences that are members of any network namespace.
///
/// # Errors
/// If they cannot be read.
pub fn fences(bpffs: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (_, name) in members(bpffs)? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The number of packets that were dropped because of a fence so far, in all network namespaces; 0 if it has no devices.
///
/// # Errors
/// If it cannot be read.
pub fn drops(bpffs: &Path, fence: &str) -> Result<u64> {
    let mut drops = 0;
    for place in place::all(bpffs)? {
        if pair::is_of_another_version(&place)? {
            continue;
        }
        if let Some(maps) = pair::open_maps(&place)?
            && let Some(slot) = maps.slot_of(fence)?
        {
            drops += pair::drops(&place, &maps, slot)?;
        }
    }
    Ok(drops)
}

/// Whether the pair of a network namespace (the caller's for `None`) is whole: both links are pinned and attached, or the
/// table of nftables guards all devices, and all maps are pinned.
///
/// # Errors
/// If it is unknown.
pub fn is_whole(bpffs: &Path, netns: Option<BorrowedFd<'_>>) -> Result<bool> {
    pair::is_whole_and_guards(&Place::of(bpffs, netns)?, netns)
}

/// The members of all network namespaces, as far as they are of this version: number and name.
fn members(bpffs: &Path) -> Result<Vec<(u32, String)>> {
    let mut members = Vec::new();
    for place in place::all(bpffs)? {
        if pair::is_of_another_version(&place)? {
            continue;
        }
        if let Some(maps) = pair::open_maps(&place)? {
            members.extend(maps.members()?);
        }
    }
    Ok(members)
}

/// The number for a fence: that which it has elsewhere, or else the lowest free one. Numbers are unique among all network
/// namespaces, because a frame's tag goes with it from one to another.
fn free_slot(bpffs: &Path, fence: &str) -> Result<u32> {
    let members = members(bpffs)?;
    if let Some((slot, _)) = members.iter().find(|(_, name)| name == fence) {
        return Ok(*slot);
    }
    let most = u32::from(frame::SLOT);
    let free = (1..=most).find(|slot| !members.iter().any(|(taken, _)| taken == slot));
    ensure!(
        free.is_some(),
        "there are {most} fences with network devices already"
    );
    Ok(free.unwrap_or_default())
}

impl Maps {
    /// The number of a fence.
    fn slot_of(&self, fence: &str) -> Result<Option<u32>> {
        let members = self.members()?;
        let found = members.into_iter().find(|(_, name)| name == fence);
        Ok(found.map(|(slot, _)| slot))
    }
}
