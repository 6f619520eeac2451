//! Mounts bpffs, and makes and checks the directories in its root.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::base::files::directory::{Directory, DirectoryError, Others};

/// Makes a directory for root alone.
pub(super) fn make(directory: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))
}

/// Makes a directory in the root of bpffs, unless it is there, and checks it.
///
/// # Errors
/// If it cannot be made, or is somebody else's.
pub(super) fn make_parent(parent: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(parent) {
        // Others can have made it where all may (mode 1777, `bpf_fill_super` in kernel/bpf/inode.c).
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| format!("cannot make {}", parent.display()))?,
    }
    check_parent(parent)?;
    Ok(())
}

/// Checks a directory in the root of bpffs, such as that of all fences, and that root; `None` if it is not there.
///
/// # Errors
/// If either is somebody else's, or others can put another in its place.
pub(super) fn check_parent(parent: &Path) -> Result<Option<Directory>, DirectoryError> {
    if let Some(root) = parent.parent() {
        Directory::trusted(root, Others::AddToSticky)?;
    }
    Directory::trusted(parent, Others::Read)
}

/// Mounts bpffs at `point`, for root alone.
///
/// # Errors
/// What mount fails with.
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
