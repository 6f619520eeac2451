//! Keeps the links of an ended fence as long as sockets exist that were made in it, if its programs were not handed over to its
//! cgroup (`handover.rs`).
//!
//! If sockets remain, the links are kept without a policy, which refuses everything, until the kernel reports that the last
//! socket is gone.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use super::{
    bpffs, by_path, device,
    link_info::{self, CgroupLink},
    local_in,
    maps::{self, Maps},
    pins::{self, Pins},
};
use crate::base::{files::entries, version};

/// The directory in bpffs for links of ended fences. Each fence has a directory named after the id of its cgroup.
const DIRECTORY: &str = "qfence-ended";

/// How long to wait for the last socket of a fence. The kernel frees it after an RCU grace period, 10 to 20 ms after
/// the cgroup was removed. If many cgroups are removed at once it takes longer, since one worker does it for all of
/// them (`cgroup_bpf_destroy_wq` in kernel/bpf/cgroup.c).
///
/// Other commands wait for the registry meanwhile. A connection to a Unix socket outside is among the sockets of the
/// fence as long as the server has it, since the kernel makes the server's socket in the process that connects
/// (`unix_stream_connect` in net/unix/af_unix.c).
const PATIENCE: Duration = Duration::from_millis(500);

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(1);

impl Pins {
    /// Removes the pins of a fence whose cgroup is gone. Its links go too, unless a process has them open. Links that still
    /// judge sockets are moved to another directory, so that the name can be used again. Links to network devices are not:
    /// what had them open has ended. `handed_over` is whether [`Pins::hand_over`] was called before the cgroup was removed:
    /// then the links are not needed any more.
    ///
    /// # Errors
    /// If they cannot be removed or moved. Missing pins are no error.
    pub fn let_go(&self, name: &str, handed_over: bool) -> Result<()> {
        self.check()?;
        let directory = self.directory(name);
        let devices = device::unpin_all(&directory).and(local_in::leave(self.bpffs(), name));
        let links = match handed_over {
            true => self.remove(name),
            false => self.let_go_of_links(name, &directory),
        };
        links.and(devices)
    }

    /// Detaches the programs of one fence from a cgroup that stays, and removes its pins. Its supervisor may still have the
    /// links open.
    ///
    /// # Errors
    /// If a program cannot be detached. All others are detached anyway, and the pins stay. Missing pins are no error.
    pub fn detach(&self, name: &str) -> Result<()> {
        self.check()?;
        let directory = self.directory(name);
        detach_all(&directory)?;
        let devices = device::unpin_all(&directory).and(local_in::leave(self.bpffs(), name));
        self.remove(name).and(devices)
    }

    /// The names of the fences that have network devices.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn with_devices(&self) -> Result<Vec<String>> {
        local_in::fences(self.bpffs())
    }

    fn let_go_of_links(&self, name: &str, directory: &Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let links = link_info::open_all(directory)?;
        loop {
            match judged(&links)? {
                None => break,
                Some(id) if Instant::now() >= deadline => return self.keep_links(directory, id),
                Some(_) => sleep(PAUSE),
            }
        }
        // The pins are removed together, and not one after the other with its link.
        let removed = self.remove(name);
        drop(links);
        removed
    }

    /// Removes kept links that judge nothing any more. Returns the failures.
    ///
    /// # Errors
    /// If the directory is another user's, or cannot be read.
    pub fn clear_ended(&self) -> Result<Vec<anyhow::Error>> {
        let parent = self.ended();
        bpffs::check_parent(&parent)?;
        let mut errors = Vec::new();
        for entry in
            entries(&parent).with_context(|| format!("cannot read {}", parent.display()))?
        {
            let directory = entry.path();
            let cleared = match pins::version_of(&directory) {
                // The other version clears them: it knows its links.
                Ok(Some(found)) if found != version::abi() => continue,
                Ok(_) => clear(&directory),
                Err(error) => Err(error),
            };
            let context = || format!("cannot clear {}", directory.display());
            errors.extend(cleared.with_context(context).err());
        }
        Ok(errors)
    }

    /// Moves the pins of a fence aside, whose cgroup has this id, so that another can have its name. Its programs stay
    /// attached, with their policy, until [`Pins::end_replaced`], or until the cgroup is gone.
    ///
    /// # Errors
    /// If they cannot be moved. Then nothing is changed.
    pub fn replace(&self, name: &str, id: u64) -> Result<()> {
        self.check()?;
        let (directory, parent) = (self.directory(name), self.ended());
        bpffs::make_parent(&parent)?;
        fs::rename(&directory, replaced(&parent, id))
            .with_context(|| format!("cannot move {} aside", directory.display()))
    }

    /// Whether a fence was moved aside whose cgroup has this id.
    #[must_use]
    pub fn has_replaced(&self, id: u64) -> bool {
        replaced(&self.ended(), id).exists()
    }

    /// Detaches the programs of a fence that was moved aside.
    ///
    /// # Errors
    /// If a program cannot be detached, or a pin cannot be removed.
    pub fn end_replaced(&self, id: u64) -> Result<()> {
        bpffs::check_parent(&self.ended())?;
        let directory = replaced(&self.ended(), id);
        detach_all(&directory)?;
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove {}", directory.display()))
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
        refuse_all(&kept)
    }

    /// The directory for links of ended fences.
    fn ended(&self) -> PathBuf {
        self.bpffs().join(DIRECTORY)
    }
}

/// The directory of a fence that was moved aside: not that of an ended one, which the next fence of the cgroup may need.
fn replaced(parent: &Path, id: u64) -> PathBuf {
    parent.join(format!("{id}-replaced"))
}

/// Detaches the programs whose links are pinned in a directory. All are tried.
fn detach_all(directory: &Path) -> Result<()> {
    let mut detached = Ok(());
    for hook in Hook::ALL.into_iter().chain(Hook::LSM) {
        let pin = directory.join(hook.name());
        let link = match by_path::open(&pin) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            link => link.and_then(|link| link_info::detach(&link)),
        };
        let context = || format!("cannot detach the program of {}", pin.display());
        detached = detached.and(link.with_context(context));
    }
    detached
}

/// Has the programs of kept links refuse everything, and removes the pins of their maps.
fn refuse_all(directory: &Path) -> Result<()> {
    let mut maps = Maps::open(directory)?;
    // If this fails, the policy refuses everything by what follows.
    let _ = maps.withdraw();
    // A process that has the maps open could put the policy back.
    maps.seal()?;
    // Where a change that had begun can come after that.
    sleep(PAUSE);
    maps.seal()?;
    maps::unpin(directory)
}

/// Removes the links in a directory if they judge nothing any more.
fn clear(directory: &Path) -> Result<()> {
    let name = directory.file_name().and_then(|name| name.to_str());
    // What a killed process left, or one that failed. The policy of a fence that was moved aside stays.
    let is_ended = name.is_some_and(|name| name.parse::<u64>().is_ok());
    if is_ended && maps::is_pinned(directory) {
        refuse_all(directory)?;
    }
    if judged(&link_info::open_all(directory)?)?.is_none() {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// The id of the cgroup whose sockets links judge; `None` if they judge none.
fn judged(links: &[CgroupLink]) -> Result<Option<u64>> {
    for link in links {
        if let Some(id) = link.cgroup()? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
