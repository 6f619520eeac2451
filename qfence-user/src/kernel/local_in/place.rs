//! The directories in bpffs: one for each network namespace, beside the directory of fences.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    base::{
        files::entries,
        locks::{Exclusive, exclusive, try_exclusive},
    },
    kernel::{bpffs::check_parent, within::number_of},
};

/// The directory in bpffs that has those of all network namespaces.
const PARENT: &str = "qfence-local-in";

/// The directory of one network namespace. Its name is the namespace's number, which no other namespace gets as long as a
/// link is pinned: a link keeps its namespace alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    /// That of a network namespace, or of the caller's for `None`.
    pub(super) fn of(bpffs: &Path, netns: Option<BorrowedFd<'_>>) -> Result<Self> {
        let number = number_of(netns).context("cannot read the number of the network namespace")?;
        Ok(Self(bpffs.join(PARENT).join(number.to_string())))
    }

    /// The number of the network namespace.
    pub(super) fn netns(&self) -> Option<u64> {
        self.0.file_name()?.to_str()?.parse().ok()
    }

    /// The directory that shows that a table of nftables takes the place of the links.
    pub(super) fn nft(&self) -> PathBuf {
        self.0.join("nft")
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory that has those of all network namespaces.
    pub(super) fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }
}

/// The lock under which pairs and their members change, in the directory that has those of all network namespaces; `None`
/// if there is no such directory.
///
/// # Errors
/// If the directory is another user's, or cannot be locked.
pub(super) fn lock(parent: &Path) -> Result<Option<Exclusive>> {
    match check_parent(parent)? {
        None => Ok(None),
        Some(_) => exclusive(parent).map(Some),
    }
}

/// The same lock, without waiting; `None` also if another process has it.
///
/// # Errors
/// If the directory is another user's, or cannot be locked.
pub(super) fn try_lock(parent: &Path) -> Result<Option<Exclusive>> {
    match check_parent(parent)? {
        None => Ok(None),
        Some(_) => try_exclusive(parent),
    }
}

/// The directory that has those of all network namespaces.
pub(super) fn parent(bpffs: &Path) -> PathBuf {
    bpffs.join(PARENT)
}

/// All places.
///
/// # Errors
/// If the directory is another user's, or cannot be read. Without a directory there are none.
pub(super) fn all(bpffs: &Path) -> Result<Vec<Place>> {
    let parent = parent(bpffs);
    check_parent(&parent)?;
    let found = entries(&parent).with_context(|| format!("cannot read {}", parent.display()))?;
    Ok(found.into_iter().map(|entry| Place(entry.path())).collect())
}
