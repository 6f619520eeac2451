//! The mount namespace of the command.

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const NONE: Option<&str> = None;

/// Moves this thread into a new mount namespace. Mounts of the caller's namespace appear in the new one, and not the other
/// way. The inner error is the reason why the kernel does not permit that; then nothing has changed for other threads.
///
/// # Errors
/// Other errors of the kernel.
pub(super) fn enter() -> Result<Result<(), String>> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(errno @ (Errno::EPERM | Errno::ENOSPC | Errno::ENOSYS)) => {
            return Ok(Err(format!("no mount namespace: {errno}")));
        }
        Err(errno) => return Err(errno).context("cannot make a mount namespace"),
    }
    // Slaves get the mounts of the host. Shared, they pass the masks on to namespaces that processes of the fence
    // make.
    for propagation in [MsFlags::MS_SLAVE, MsFlags::MS_SHARED] {
        match propagate(propagation) {
            Ok(()) => {}
            // The root directory is not a mount point (chroot).
            Err(errno @ (Errno::EINVAL | Errno::EPERM)) => {
                return Ok(Err(format!("mounts cannot be made private: {errno}")));
            }
            Err(errno) => return Err(errno).context("cannot make mounts private"),
        }
    }
    Ok(Ok(()))
}

/// Stops that mounts of the host appear in the namespace.
///
/// # Errors
/// The errors of mount(2).
pub(super) fn part() -> nix::Result<()> {
    propagate(MsFlags::MS_PRIVATE)?;
    propagate(MsFlags::MS_SHARED)
}

fn propagate(propagation: MsFlags) -> nix::Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | propagation, NONE)
}
