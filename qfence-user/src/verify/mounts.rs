//! Mounts a private /run/qfence for the description of the throw-away fence and for the private host's resolv.conf. It
//! ends with the process.

use std::path::Path;

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::cases::resolv_conf;
use crate::base::{
    files::{PRIVATE_FILE, directory::Directory, staged::replace},
    paths::Paths,
};

const NONE: Option<&str> = None;

/// Moves this thread to a private mount namespace; returns the paths to use there.
///
/// # Errors
/// If the namespace, the mount or the file cannot be made.
pub fn make_private(paths: &Paths) -> Result<Paths> {
    unshare(CloneFlags::CLONE_NEWNS)
        .context("cannot make a mount namespace (CAP_SYS_ADMIN is needed)")?;
    mount(
        NONE,
        Path::new("/"),
        NONE,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        NONE,
    )
    .context("cannot make mounts private")?;
    let run = &paths.run;
    let context = || format!("cannot mount a file system at {}", run.display());
    // The mount point is made in the host's /run and remains.
    Directory::make_private(run)?;
    mount(
        Some("tmpfs"),
        run,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700,size=1m"),
    )
    .with_context(context)?;
    let file = run.join("resolv.conf");
    replace(&file, resolv_conf().as_bytes(), PRIVATE_FILE)?;
    Ok(Paths {
        host_file: file.with_file_name("host.toml"),
        resolv_conf: file,
        ..paths.clone()
    })
}
