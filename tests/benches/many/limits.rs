//! What the machine allows, and many fences need more of.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many inotify(7) instances a user may have. A supervisor has one, for resolv.conf, and it is root's.
const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
/// What else of root's has some.
const OTHERS: u32 = 256;
/// Descriptors that are not for a fence.
const DESCRIPTORS: u64 = 256;

/// Limits that are raised. What is the machine's own is put back when this is dropped.
pub(crate) struct Limits {
    /// For how many fences.
    fences: u32,
    /// How many instances there were allowed, if that might have been too few.
    instances: Option<u32>,
}

impl Limits {
    /// Raises them for that many fences.
    pub(crate) fn raise(fences: u32) -> Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let wanted = u64::from(fences) + DESCRIPTORS;
        ensure!(most >= wanted, "{most} open files are allowed: too few");
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise RLIMIT_NOFILE")?;
        let text = fs::read_to_string(INSTANCES).with_context(|| format!("read {INSTANCES}"))?;
        let allowed: u32 = text.trim().parse().context(INSTANCES)?;
        let wanted = fences + OTHERS;
        let instances = (allowed < wanted).then_some(allowed);
        if instances.is_some() {
            fs::write(INSTANCES, wanted.to_string())
                .with_context(|| format!("write {INSTANCES}"))?;
        }
        Ok(Self { fences, instances })
    }

    /// What had to be raised, because it was too few even with nobody else there.
    pub(crate) fn raised(&self) -> Option<String> {
        let allowed = self.instances.filter(|allowed| *allowed <= self.fences)?;
        Some(format!(
            "each has an inotify instance, and fs.inotify.max_user_instances is {allowed}; raised meanwhile"
        ))
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        if let Some(allowed) = self.instances {
            // A destructor has nobody to tell.
            let _ = fs::write(INSTANCES, allowed.to_string());
        }
    }
}
