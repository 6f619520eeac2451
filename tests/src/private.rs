//! A machine of its own as far as qfence is concerned: other cgroups, other pins, other descriptions.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    fence::{qfence, unique_name},
    mounts::{bind, host_with, mount_new, mounted, unmount},
    namespace::Namespace,
    remains::cgroup2_mount,
    run::wait_until,
};

/// A host whose cgroup2 hierarchy is one cgroup of the machine's, with a place for fences of its own.
/// What is attached there concerns nobody else.
#[derive(Debug)]
pub struct Private {
    cgroup: PathBuf,
    host: Namespace,
}

impl Private {
    /// Makes one. Its cgroup is removed when this value goes, and with it what is attached there.
    pub fn new() -> Result<Self> {
        let cgroup = cgroup2_mount()?.join(unique_name("private"));
        fs::create_dir(&cgroup).context("make a cgroup")?;
        let made = host_with(|| {
            let elsewhere = mounted("cgroup2")?;
            bind(&cgroup, "/mnt")?;
            unmount(&elsewhere)?;
            // qfence takes pins and descriptions without a cgroup for leftovers: not the machine's.
            mount_new("tmpfs", "/run", None)?;
            mount_new("bpf", "/sys/fs/bpf", None)
        });
        match made {
            Ok(host) => Ok(Self { cgroup, host }),
            Err(error) => {
                fs::remove_dir(&cgroup)?;
                Err(error)
            }
        }
    }

    /// The host's mounts and network.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.host
    }

    /// The cgroup that is the root of its hierarchy, as the machine sees it.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that will run qfence there.
    pub fn qfence(&self) -> Result<Command> {
        Ok(self.host.command(qfence()?))
    }

    /// The cgroups below, but for the one that fences are in.
    pub fn left(&self) -> Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for directory in [self.cgroup.clone(), self.cgroup.join("qfence")] {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() && entry.file_name() != OsStr::new("qfence") {
                    left.push(entry.path());
                }
            }
        }
        Ok(left)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // A destructor has nobody to tell. A test that fails may leave processes in fences.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = wait_until("the private cgroups are removed", || {
            let mut below = self.left().unwrap_or_default();
            below.extend([self.cgroup.join("qfence"), self.cgroup.clone()]);
            for directory in below {
                let _ = fs::remove_dir(directory);
            }
            Ok(!self.cgroup.exists())
        });
    }
}
