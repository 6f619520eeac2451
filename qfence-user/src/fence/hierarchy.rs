//! Finds the cgroup2 hierarchy, and keeps the parent of all fences in it.
//!
//! cgroups-rs has the constant /sys/fs/cgroup for it, which is another thing on a hybrid host.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{
    base::{
        locks::{self, Exclusive},
        mounts,
        name::Names,
    },
    fence::{
        cgroup::{Cgroup, directories_in, make_directory, set_mode},
        place::Place,
    },
};

/// The cgroup under the hierarchy's root that all fences are in.
pub(crate) const PARENT: &str = "qfence";

/// Why there is no hierarchy to work in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHierarchy {
    /// Only cgroup v1 is mounted.
    #[error(
        "only cgroup v1 is mounted, and qfence needs cgroup v2: boot with \
         systemd.unified_cgroup_hierarchy=1, or mount it beside v1 with \
         `mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`"
    )]
    OnlyV1,
    /// No cgroup file system is mounted at all.
    #[error(
        "no cgroup2 file system is mounted here (`ip netns exec` hides it: use `nsenter --net=…`): \
         mount it with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
    )]
    None,
}

/// The cgroup2 hierarchy, and in it the parent of all fences.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
    root: PathBuf,
}

impl Hierarchy {
    /// Finds the cgroup2 mount in the mount table at `mountinfo`, on pure v2 and hybrid hosts alike.
    ///
    /// # Errors
    /// [`NoHierarchy`] if there is none.
    pub fn find(mountinfo: &Path) -> Result<Self> {
        let mounts = mounts::read(mountinfo)
            .with_context(|| format!("cannot read the mount table {}", mountinfo.display()))?;
        let mut candidates: Vec<_> = mounts.iter().filter(|m| m.fs_type == "cgroup2").collect();
        // The whole hierarchy rather than a bind mount of a part of it.
        candidates.sort_by_key(|mount| mount.root != Path::new("/"));
        let visible = |mount: &&&mounts::Mount| {
            statfs(&mount.point).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        match candidates.iter().find(visible) {
            Some(mount) => Ok(Self {
                mount: mount.point.clone(),
                root: mount.root.clone(),
            }),
            None if mounts.iter().any(|mount| mount.fs_type == "cgroup") => {
                Err(NoHierarchy::OnlyV1.into())
            }
            None => Err(NoHierarchy::None.into()),
        }
    }

    /// Where the hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Which cgroup is mounted there, as the kernel shows it to this process.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that all fences are in.
    #[must_use]
    pub fn parent(&self) -> PathBuf {
        self.mount.join(PARENT)
    }

    /// Makes the parent of all fences where it is not, and makes sure that only root can move
    /// processes in and out of it.
    ///
    /// A process may leave a cgroup if it can write to the common ancestor's `cgroup.procs`
    /// (cgroups(7), "Delegation containment"), so the root of the mount is looked at as well.
    ///
    /// # Errors
    /// If it cannot be made, or is in somebody's delegated subtree.
    pub fn prepare(&self) -> Result<()> {
        let parent = self.parent();
        match make_directory(&parent) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                set_mode(&parent)?;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot make the cgroup {} (in a container, cgroup v2 must be mounted \
                         writable)",
                        parent.display()
                    )
                });
            }
        }
        self.check_containment()
    }

    /// Makes sure that only root can move processes in and out of the parent of all fences, as far as
    /// that is there.
    ///
    /// # Errors
    /// If others can.
    pub fn check_containment(&self) -> Result<()> {
        let parent = self.parent();
        let there = parent.exists().then_some(&parent);
        for directory in [&self.mount].into_iter().chain(there) {
            for path in [directory.clone(), directory.join("cgroup.procs")] {
                let metadata = fs::metadata(&path)
                    .with_context(|| format!("cannot look at {}", path.display()))?;
                ensure!(
                    metadata.uid() == 0 && metadata.mode() & 0o022 == 0,
                    "{} can be written to by others than root (uid {}, mode {:o}): a process \
                     could move itself out of a fence there; run qfence outside of delegated \
                     cgroups",
                    path.display(),
                    metadata.uid(),
                    metadata.mode() & 0o7777
                );
            }
        }
        Ok(())
    }

    /// Takes the lock under which cgroups are made and removed in the parent. It keeps out those who see this hierarchy and
    /// have another registry.
    ///
    /// # Errors
    /// If the parent cannot be opened or locked, or [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Exclusive> {
        locks::exclusive(&self.parent())
    }

    /// The cgroup of that name, whether it exists or not.
    #[must_use]
    pub fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup::at(self.parent().join(name))
    }

    /// The place of the fence of that name, whether it exists or not.
    #[must_use]
    pub(crate) fn place(&self, name: &str) -> Place {
        Place::new(self.cgroup(name))
    }

    /// The names of the cgroups under the parent, and what else is there. Without a parent there is none.
    ///
    /// # Errors
    /// If the parent cannot be read.
    pub fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        let paths = match directories_in(&self.parent()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            paths => paths?,
        };
        for path in paths {
            names.add(path.file_name().and_then(OsStr::to_str), &path);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(mountinfo: &str) -> Result<Hierarchy> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mountinfo");
        fs::write(&path, mountinfo).unwrap();
        Hierarchy::find(&path)
    }

    #[test]
    fn a_v1_only_host_is_a_clear_error() {
        let error = find(
            "25 1 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
             26 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        )
        .unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&NoHierarchy::OnlyV1));
    }

    #[test]
    fn no_cgroups_at_all_is_another() {
        let error = find("25 1 0:23 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&NoHierarchy::None));
    }

    #[test]
    fn a_mount_that_another_covers_is_not_taken() {
        let error = find("25 1 0:23 / /proc rw - cgroup2 cgroup2 rw\n").unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&NoHierarchy::None));
    }
}
