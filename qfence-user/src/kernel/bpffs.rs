//! Mounts bpffs, and makes and checks the directories in its root.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::base::files::directory::{Directory, DirectoryError, Others};

/// Why a directory cannot be made in bpffs.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The directory that it would be in is not used.
    #[error(transparent)]
    Parent(#[from] DirectoryError),
    /// mkdir failed.
    #[error("cannot make {}", path.display())]
    Make {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MakeError {
    /// Whether the directory exists already.
    #[must_use]
    pub fn exists(&self) -> bool {
        matches!(self, Self::Make { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }
}

/// Makes a directory for root alone.
pub(super) fn make(directory: &Path) -> Result<(), MakeError> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    made.map_err(|source| MakeError::Make {
        path: directory.to_owned(),
        source,
    })
}

/// Makes a directory in the root of bpffs if it does not exist, and checks it.
///
/// # Errors
/// If it cannot be made, or is another user's.
pub(super) fn make_parent(parent: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(parent) {
        // Every user can make directories in the root of bpffs (mode 1777, `bpf_fill_super` in kernel/bpf/inode.c).
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("cannot make {}", parent.display()))?,
    }
    check_parent(parent)?;
    Ok(())
}

/// Checks a directory in the root of bpffs, and that root; `None` if it does not exist.
///
/// # Errors
/// If either is another user's, or others can replace them.
pub(super) fn check_parent(parent: &Path) -> Result<Option<Directory>, DirectoryError> {
    if let Some(root) = parent.parent() {
        Directory::trusted(root, Others::AddToSticky)?;
    }
    Directory::trusted(parent, Others::Read)
}

/// Mounts bpffs at `point`, for root only.
///
/// # Errors
/// Errors of mount.
pub(crate) fn mount_bpffs(point: &Path) -> Result<()> {
    mount(
        Some("bpf"),
        point,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| {
        format!(
            "no bpffs is mounted at {}, and mounting it failed",
            point.display()
        )
    })
}
