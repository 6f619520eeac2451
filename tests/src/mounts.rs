//! Hosts whose mounts differ from those of the machine.

use std::fs;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::namespace::Namespace;

const NONE: Option<&str> = None;

/// A host whose mounts are changed by `change`. Its network is new and empty.
pub fn host_with(change: impl FnOnce() -> Result<()> + Send) -> Result<Namespace> {
    Namespace::with_mounts(|| {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, "/", NONE, private, NONE).context("make all mounts private")?;
        change()
    })
}

/// The mount points of file systems of a type, the last mounted first.
pub fn mounted(fs_type: &str) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut points = Vec::new();
    for line in mounts.lines().rev() {
        let (before, after) = line.split_once(" - ").context("a line of mountinfo")?;
        if after.split(' ').next() == Some(fs_type) {
            points.push(before.split(' ').nth(4).context("a mount point")?.into());
        }
    }
    Ok(points)
}

/// Unmounts all file systems of a type; only where mounts are private.
pub fn unmount_all(fs_type: &str) -> Result<()> {
    unmount(&mounted(fs_type)?)
}

/// Unmounts the file systems at these points; only where mounts are private.
pub fn unmount(points: &[String]) -> Result<()> {
    for point in points {
        umount2(point.as_str(), MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {point}"))?;
    }
    Ok(())
}

/// Mounts a new file system of a type; only where mounts are private.
pub fn mount_new(fs_type: &str, point: &str, options: Option<&str>) -> Result<()> {
    mount(
        Some(fs_type),
        point,
        Some(fs_type),
        MsFlags::empty(),
        options,
    )
    .with_context(|| format!("mount {fs_type} on {point}"))
}

/// Binds a directory to another path; only where mounts are private.
pub fn bind(directory: &std::path::Path, point: &str) -> Result<()> {
    mount(Some(directory), point, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("bind {} to {point}", directory.display()))
}
