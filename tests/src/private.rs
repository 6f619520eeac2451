//! A private machine, as far as qfence can see: other cgroups, other pins, other descriptions.

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

/// A host whose cgroup2 hierarchy is one cgroup of the machine, with its own fences. Programs that are attached there
/// affect nothing else.
#[derive(Debug)]
pub struct Private {
    cgroup: PathBuf,
    host: Namespace,
}

impl Private {
    /// Makes a private host. Dropping it removes its cgroup, and the programs attached there.
    pub fn new() -> Result<Self> {
        let cgroup = cgroup2_mount()?.join(unique_name("private"));
        fs::create_dir(&cgroup).context("make a cgroup")?;
        let made = host_with(|| {
            let elsewhere = mounted("cgroup2")?;
            bind(&cgroup, "/mnt")?;
            unmount(&elsewhere)?;
            // qfence takes pins and descriptions without a cgroup for leftovers, so those of the machine must not be
            // visible.
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

    /// The mounts and network of the host.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.host
    }

    /// The cgroup that is the root of its hierarchy, by the machine's path.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that runs qfence there.
    pub fn qfence(&self) -> Result<Command> {
        Ok(self.host.command(qfence()?))
    }

    /// The descendant cgroups, except the parent of the fences.
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
        // A destructor cannot report an error. A test that fails may leave processes in fences.
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
