//! What is left of a fence that has ended: its links, as long as there are sockets that were made in it.
//!
//! Sockets belong to the cgroup that they were made in, and can be handed on (`SCM_RIGHTS`). A cgroup that was removed
//! goes on judging them (`cgroup_bpf_offline` in kernel/bpf/cgroup.c), but only as long as its links are there. So the links
//! of a fence whose sockets somebody has are kept, without a policy, which refuses everything, until the kernel says that
//! the last socket is gone.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    bpffs, link_info,
    maps::{self, Maps},
    pins::{self, Pins},
};
use crate::base::{files::entries, version};

/// The directory in bpffs of what is left of fences, each by the id of its cgroup.
const DIRECTORY: &str = "qfence-ended";

/// How long the last socket of a fence is waited for: its memory is given back when a grace period of RCU is over, 10 to
/// 20 ms after the cgroup was removed. Where many cgroups are removed at once it takes longer: one worker of the kernel's
/// does that for all of them (`cgroup_bpf_destroy_wq` in kernel/bpf/cgroup.c).
const PATIENCE: Duration = Duration::from_secs(3);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(1);

impl Pins {
    /// Removes the pins of a fence whose cgroup is gone, and with them, unless a process holds them too, its links. Those
    /// that still judge sockets are kept, and taken from the fence's name: others may use it.
    ///
    /// # Errors
    /// If they cannot be removed or kept. That they are gone already is no error.
    pub fn let_go(&self, name: &str) -> Result<()> {
        self.check()?;
        let directory = self.directory(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match judged(&directory)? {
                None => return self.remove(name),
                Some(id) if Instant::now() >= deadline => return self.keep_links(&directory, id),
                Some(_) => sleep(PAUSE),
            }
        }
    }

    /// Removes the links that were kept and judge nothing any more. Returns what went wrong.
    ///
    /// # Errors
    /// If the directory is somebody else's, or cannot be read.
    pub fn clear_ended(&self) -> Result<Vec<anyhow::Error>> {
        let parent = self.ended();
        bpffs::check_parent(&parent)?;
        let mut errors = Vec::new();
        for entry in
            entries(&parent).with_context(|| format!("cannot read {}", parent.display()))?
        {
            let directory = entry.path();
            let cleared = match pins::version_of(&directory) {
                // That version clears them: it knows which links there are.
                Ok(Some(found)) if found != version::abi() => continue,
                Ok(_) => clear(&directory),
                Err(error) => Err(error),
            };
            let context = || format!("cannot clear {}", directory.display());
            errors.extend(cleared.with_context(context).err());
        }
        Ok(errors)
    }

    fn keep_links(&self, directory: &Path, id: u64) -> Result<()> {
        let parent = self.ended();
        bpffs::make_parent(&parent)?;
        let kept = parent.join(id.to_string());
        fs::rename(directory, &kept).with_context(|| {
            format!(
                "cannot keep the links of {} as {}",
                directory.display(),
                kept.display()
            )
        })?;
        Maps::open(&kept)?.withdraw()?;
        maps::unpin(&kept)
    }

    /// The directory of what is left of fences.
    fn ended(&self) -> PathBuf {
        self.bpffs().join(DIRECTORY)
    }
}

/// Removes the links in a directory if they judge nothing any more.
fn clear(directory: &Path) -> Result<()> {
    if judged(directory)?.is_none() {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// The id of the cgroup whose sockets the links in a directory judge, if they judge any.
fn judged(directory: &Path) -> Result<Option<u64>> {
    Ok(link_info::cgroups_of(directory)?
        .into_iter()
        .flatten()
        .next())
}
