//! The place of a fence: the cgroup that its programs are attached to.
//!
//! The place decides how it is made, how its processes are ended, and what happens to it when its fence is removed.
//! The registry is independent of it: the name, the lock and the supervisor's mark are files of /run/qfence.

use std::{fs::File, io, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use nix::{sys::signal::Signal, unistd::Pid};

use super::cgroup::{Cgroup, is_gone};
use crate::base::locks::Mark;

/// The place of a fence.
#[derive(Clone, Debug)]
pub struct Place {
    cgroup: Cgroup,
    /// The cgroup's id, if others have made it. Another cgroup can get its path later.
    of_others: Option<u64>,
    /// Whether it is a cgroup without processes, which was made for a fence that has only devices.
    is_empty: bool,
}

impl Place {
    /// A cgroup of the fence's own, whether it exists or not. It is made for the fence, and removed with it after its
    /// processes were killed.
    pub(crate) fn own(cgroup: Cgroup) -> Self {
        Self {
            cgroup,
            of_others: None,
            is_empty: false,
        }
    }

    /// A cgroup with this id that others have made, and that they remove. Its processes are theirs: no fence ends them.
    pub(crate) fn of_others(cgroup: Cgroup, id: u64) -> Self {
        Self {
            cgroup,
            of_others: Some(id),
            is_empty: false,
        }
    }

    /// A cgroup with this id that was made for a fence that has only devices. No process is in it, and the fence needs none.
    pub(crate) fn of_devices(cgroup: Cgroup, id: u64) -> Self {
        Self {
            is_empty: true,
            ..Self::of_others(cgroup, id)
        }
    }

    /// Whether it was made for the fence.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.of_others.is_none()
    }

    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its id; `None` if it is gone.
    ///
    /// # Errors
    /// Errors of reading.
    pub fn id(&self) -> io::Result<Option<u64>> {
        let found = self.cgroup.id()?;
        Ok(found.filter(|found| self.of_others.is_none_or(|id| id == *found)))
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self.of_others {
            None => self.cgroup.exists(),
            Some(_) => self.id().is_ok_and(|id| id.is_some()),
        }
    }

    /// Whether it needs its fence: its processes do, and those that others may start in a place of theirs.
    ///
    /// # Errors
    /// Errors of reading.
    pub fn is_in_use(&self) -> io::Result<bool> {
        match self.of_others {
            None => self.is_populated(),
            Some(_) => Ok(self.id()?.is_some()),
        }
    }

    /// Makes it. An existing one is an error.
    ///
    /// # Errors
    /// Errors of mkdir.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.cgroup.create()
    }

    /// Marks it as in use, as long as the mark and this process live. The mark is for processes that see the cgroup
    /// but have another /run/qfence, in a container or during `verify`: an empty cgroup that is in use must not be
    /// cleared.
    ///
    /// # Errors
    /// If it cannot be opened or marked.
    pub(crate) fn mark(&self) -> Result<Mark> {
        let directory = self.cgroup.directory();
        Mark::set(self.cgroup.open()?)
            .with_context(|| format!("cannot mark {}", directory.display()))
    }

    /// Whether it is marked. A missing one is not, and none of others: they could have marked it. Takes no lock.
    ///
    /// # Errors
    /// If it cannot be opened or queried.
    pub(crate) fn is_marked(&self) -> Result<bool> {
        if !self.is_own() {
            return Ok(false);
        }
        let directory = self.cgroup.directory();
        let context = || format!("cannot query the mark of {}", directory.display());
        match File::open(directory) {
            Ok(directory) => Mark::is_on(&directory).with_context(context),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).with_context(context),
        }
    }

    /// Whether processes run there.
    ///
    /// # Errors
    /// Errors of reading. A missing place has no processes.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(self.id()?.is_some() && self.cgroup.is_populated()?)
    }

    /// The processes there, in any order.
    ///
    /// # Errors
    /// Errors of reading. A missing place has no processes.
    pub fn pids(&self) -> io::Result<Vec<Pid>> {
        match self.id()? {
            Some(_) => self.cgroup.pids(),
            None => Ok(Vec::new()),
        }
    }

    /// Asks the processes there to end, and waits for that; those of others are left alone.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub(super) fn ask_to_end(&self, patience: Duration) -> io::Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        self.cgroup.signal(Signal::SIGTERM)?;
        // A stopped process acts only on this signal and SIGKILL.
        self.cgroup.signal(Signal::SIGCONT)?;
        self.cgroup.wait_empty(patience).map(drop)
    }

    /// Kills the processes there, and waits until none is left; those of others are left alone.
    ///
    /// # Errors
    /// If some are left after `patience`.
    pub(super) fn empty(&self, patience: Duration) -> Result<()> {
        match self.is_own() {
            true => self.cgroup.kill_all(patience),
            false => Ok(()),
        }
    }

    /// Removes it. It must have no processes. That of others is left alone.
    ///
    /// # Errors
    /// Errors of rmdir; a missing cgroup is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        match self.is_own() || self.is_empty && self.exists() {
            true => self.cgroup.remove(),
            false => Ok(()),
        }
    }

    /// The path of a place of others below the mount of cgroup2; `None` for an own one.
    pub(crate) fn below(&self, mount: &Path) -> Option<&Path> {
        let path = self.cgroup.directory().strip_prefix(mount).ok();
        path.filter(|_| !self.is_own())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_place_of_others_is_gone_when_another_cgroup_has_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.scope");
        fs::create_dir(&path).unwrap();
        let id = fs::metadata(&path).unwrap().ino();
        let cgroup = Cgroup::at(path.clone());
        let place = Place::of_others(cgroup.clone(), id);
        assert!(place.exists() && place.is_in_use().unwrap());
        let other = Place::of_others(cgroup, id + 1);
        assert!(!other.exists() && !other.is_in_use().unwrap());
        assert_eq!(place.below(dir.path()), Some(Path::new("a.scope")));
        // Nothing of it is removed with the fence.
        place.empty(Duration::ZERO).unwrap();
        place.remove().unwrap();
        assert!(path.exists());
    }
}
