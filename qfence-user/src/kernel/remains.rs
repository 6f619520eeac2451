//! What is left of a fence that has ended: its links, as long as there are sockets that were made in it.
//!
//! Sockets belong to the cgroup that they were made in, and can be handed on (`SCM_RIGHTS`). A cgroup that was removed
//! goes on judging them (`cgroup_bpf_offline` in kernel/bpf/cgroup.c), but only as long as its links are there. So the links
//! of a fence whose sockets somebody has are kept, without a policy, which refuses everything, until the kernel says that
//! the last socket is gone.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use qfence_common::Hook;

use super::{link_info, maps::Maps, pins::Pins};

/// The directory in bpffs of what is left of fences, each by the id of its cgroup.
const DIRECTORY: &str = "qfence-ended";

/// How long the last socket of a fence is waited for: its memory is given back when a grace period of RCU is over, 10 to
/// 20 ms after the cgroup was removed.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(1);

impl Pins {
    /// Removes the pins of a fence whose cgroup is gone, and with them, unless a process holds them too, its links. Those
    /// that still judge sockets are kept, and taken from the fence's name; whether there are any.
    ///
    /// # Errors
    /// If they cannot be removed or kept. That they are gone already is no error.
    pub fn let_go(&self, name: &str) -> Result<bool> {
        self.check()?;
        let directory = self.directory(name);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match judges(&directory).with_context(|| cannot_ask(&directory))? {
                None => return self.remove(name).map(|()| false),
                Some(id) if Instant::now() >= deadline => {
                    return self.keep_links(&directory, id).map(|()| true);
                }
                Some(_) => sleep(PAUSE),
            }
        }
    }

    /// Removes what was kept and judges nothing any more. Returns what went wrong.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn clear_ended(&self) -> Result<Vec<anyhow::Error>> {
        let parent = self.ended();
        if !parent.exists() {
            return Ok(Vec::new());
        }
        super::pins::open(&parent)?;
        let entries = fs::read_dir(&parent).with_context(|| cannot_ask(&parent))?;
        let mut errors = Vec::new();
        for entry in entries {
            let directory = entry.with_context(|| cannot_ask(&parent))?.path();
            let cleared = match judges(&directory) {
                Ok(Some(_)) => continue,
                Ok(None) => fs::remove_dir_all(&directory),
                Err(error) => Err(error),
            };
            if let Err(error) = cleared {
                let context = format!("cannot clear {}", directory.display());
                errors.push(anyhow::Error::new(error).context(context));
            }
        }
        Ok(errors)
    }

    fn keep_links(&self, directory: &Path, id: u64) -> Result<()> {
        let parent = self.ended();
        match fs::DirBuilder::new().mode(0o700).create(&parent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("cannot make {}", parent.display()))?,
        }
        let _parent: File = super::pins::open(&parent)?;
        let kept = parent.join(id.to_string());
        fs::rename(directory, &kept).with_context(|| {
            format!(
                "cannot keep the links of {} as {}",
                directory.display(),
                kept.display()
            )
        })?;
        Maps::open(&kept)?.withdraw()?;
        super::maps::unpin(&kept)
    }

    /// The directory of what is left of fences.
    fn ended(&self) -> PathBuf {
        self.bpffs().join(DIRECTORY)
    }
}

/// The id of a cgroup that a link in a directory judges the sockets of, if any does.
fn judges(directory: &Path) -> io::Result<Option<u64>> {
    for hook in Hook::ALL {
        match link_info::cgroup_of(&directory.join(hook.name())) {
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            judged => return judged,
        }
    }
    Ok(None)
}

fn cannot_ask(path: &Path) -> String {
    format!("cannot tell what {} judges", path.display())
}
