//! Finds the cgroup2 hierarchy, and makes the parent of all fences in it.
//!
//! cgroups-rs assumes /sys/fs/cgroup, which is not the cgroup2 mount on a hybrid host.

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

/// The cgroup in the hierarchy's root that has all fences.
pub(crate) const PARENT: &str = "qfence";

/// Why there is no usable hierarchy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHierarchy {
    /// Only cgroup v1 is mounted.
    #[error("{}, and qfence needs cgroup v2: {}", self.finding(), self.fix())]
    OnlyV1,
    /// No cgroup file system is mounted at all.
    #[error("{}: {}", self.finding(), self.fix())]
    None,
}

impl NoHierarchy {
    /// What was found instead.
    #[must_use]
    pub const fn finding(&self) -> &'static str {
        match self {
            Self::OnlyV1 => "only cgroup v1 is mounted",
            Self::None => {
                "no cgroup2 file system is mounted here (`ip netns exec` hides it: call qfence outside of it, `exec` \
                 with --netns NAME)"
            }
        }
    }

    /// What the user can do.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::OnlyV1 => {
                "boot with systemd.unified_cgroup_hierarchy=1, or mount it beside v1 with \
                 `mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`"
            }
            Self::None => "mount it with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`",
        }
    }
}

/// Why the hierarchy was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The mount table cannot be read.
    #[error("cannot read the mount table {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error(transparent)]
    None(#[from] NoHierarchy),
}

/// The cgroup2 hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
    root: PathBuf,
}

impl Hierarchy {
    /// Finds the cgroup2 mount in the mount table at `mountinfo`, on pure v2 and hybrid hosts alike.
    ///
    /// # Errors
    /// If there is none, or the mount table cannot be read.
    pub fn find(mountinfo: &Path) -> Result<Self, FindError> {
        let mounts = mounts::read(mountinfo).map_err(|source| FindError::Read {
            path: mountinfo.to_owned(),
            source,
        })?;
        let mut candidates: Vec<_> = mounts.iter().filter(|m| m.fs_type == "cgroup2").collect();
        // A mount of the whole hierarchy is preferred over a bind mount of a part.
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

    /// The hierarchy at a mount point where `root` is mounted.
    #[cfg(test)]
    pub(crate) fn at(mount: PathBuf, root: PathBuf) -> Self {
        Self { mount, root }
    }

    /// The mount point of the hierarchy.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The cgroup that is mounted there, as the kernel shows it to this process.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that has all fences.
    #[must_use]
    pub fn parent(&self) -> PathBuf {
        self.mount.join(PARENT)
    }

    /// Makes the parent of all fences if it does not exist, and checks that only root can move processes into and out
    /// of it.
    ///
    /// A process can leave a cgroup if it can write to `cgroup.procs` of a common ancestor (cgroups(7), "Delegation
    /// containment"). So the root of the mount is checked as well.
    ///
    /// # Errors
    /// If it cannot be made, or is in a subtree that is delegated to a user.
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

    /// Checks that only root can move processes into and out of the parent of all fences, if that exists.
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

    /// Takes the lock under which cgroups are made and removed in the parent. It excludes processes that see this
    /// hierarchy but use another registry.
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

    /// The cgroup of others at a path below the mount, whether it exists or not.
    #[must_use]
    pub fn other(&self, path: &Path) -> Cgroup {
        Cgroup::at(self.mount.join(path))
    }

    /// The place of the fence of that name, whether it exists or not.
    #[must_use]
    pub(crate) fn place(&self, name: &str) -> Place {
        Place::own(self.cgroup(name))
    }

    /// The place of the fence of that name beneath a cgroup of others, whether it exists or not. `id` is that of its
    /// cgroup, if that is known.
    #[must_use]
    pub(crate) fn place_beneath(&self, path: &Path, name: &str, id: Option<u64>) -> Place {
        let cgroup = Cgroup::at(self.mount.join(path).join(PARENT).join(name));
        Place::own_beneath(cgroup, id)
    }

    /// The names of the cgroups in the parent, and its other entries. Without a parent there are none.
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

    fn find(mountinfo: &str) -> Result<Hierarchy, FindError> {
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
        assert!(
            matches!(error, FindError::None(NoHierarchy::OnlyV1)),
            "{error}"
        );
    }

    #[test]
    fn no_cgroups_at_all_is_another() {
        let error = find("25 1 0:23 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert!(
            matches!(error, FindError::None(NoHierarchy::None)),
            "{error}"
        );
    }

    #[test]
    fn a_mount_that_another_covers_is_not_taken() {
        let error = find("25 1 0:23 / /proc rw - cgroup2 cgroup2 rw\n").unwrap_err();
        assert!(
            matches!(error, FindError::None(NoHierarchy::None)),
            "{error}"
        );
    }
}
