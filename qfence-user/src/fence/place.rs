//! The place of a fence: the cgroup that its programs are attached to.
//!
//! The place decides how it is made, how its processes are ended, and what happens to it when its fence is removed.
//! The registry is independent of it: the name, the lock and the supervisor's mark are files of /run/qfence.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{sys::signal::Signal, unistd::Pid};

use super::cgroup::{Cgroup, is_gone, make_directory, set_mode};
use crate::base::locks::Mark;

/// The place of a fence.
#[derive(Clone, Debug)]
pub struct Place {
    cgroup: Cgroup,
    kind: Kind,
}

/// Who makes and removes the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// qfence, in the parent of all fences, where the name of the fence is its own.
    Own,
    /// qfence, beneath a cgroup of others, who may remove it when it is empty. Another cgroup can get its path later, so
    /// its id is noted as soon as it is known.
    OwnBeneath(Option<u64>),
    /// Others. Another cgroup can get its path later.
    OfOthers(u64),
    /// qfence, as [`Kind::Own`], for a fence that has only devices. No process is in it, and the fence needs none.
    OfDevices(u64),
}

impl Place {
    /// A cgroup of the fence's own, whether it exists or not. It is made for the fence, and removed with it after its
    /// processes were killed.
    pub(crate) fn own(cgroup: Cgroup) -> Self {
        Self {
            cgroup,
            kind: Kind::Own,
        }
    }

    /// A cgroup of the fence's own beneath one of others, whether it exists or not. If its id is given, only that cgroup
    /// counts.
    pub(crate) fn own_beneath(cgroup: Cgroup, id: Option<u64>) -> Self {
        Self {
            cgroup,
            kind: Kind::OwnBeneath(id),
        }
    }

    /// A cgroup with this id that others have made, and that they remove. Its processes are theirs: no fence ends them.
    pub(crate) fn of_others(cgroup: Cgroup, id: u64) -> Self {
        Self {
            cgroup,
            kind: Kind::OfOthers(id),
        }
    }

    /// The same place, after it was made with this id.
    pub(super) fn known_by(self, id: u64) -> Self {
        match self.kind {
            Kind::OwnBeneath(_) => Self::own_beneath(self.cgroup, Some(id)),
            Kind::Own | Kind::OfOthers(_) | Kind::OfDevices(_) => self,
        }
    }

    /// Whether it is in the parent of all fences, under the name of its fence.
    #[must_use]
    pub(super) fn is_at_top(&self) -> bool {
        self.kind == Kind::Own
    }

    /// The id that its cgroup must have.
    fn wanted_id(&self) -> Option<u64> {
        match self.kind {
            Kind::Own => None,
            Kind::OwnBeneath(id) => id,
            Kind::OfOthers(id) | Kind::OfDevices(id) => Some(id),
        }
    }

    /// A cgroup with this id that was made for a fence that has only devices.
    pub(crate) fn of_devices(cgroup: Cgroup, id: u64) -> Self {
        Self {
            cgroup,
            kind: Kind::OfDevices(id),
        }
    }

    /// Whether it was made for the fence.
    #[must_use]
    pub fn is_own(&self) -> bool {
        !matches!(self.kind, Kind::OfOthers(_) | Kind::OfDevices(_))
    }

    /// Whether others have made it, and its processes are theirs.
    #[must_use]
    pub fn is_of_others(&self) -> bool {
        matches!(self.kind, Kind::OfOthers(_))
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
        Ok(found.filter(|found| self.wanted_id().is_none_or(|id| id == *found)))
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self.wanted_id() {
            None => self.cgroup.exists(),
            Some(_) => self.id().is_ok_and(|id| id.is_some()),
        }
    }

    /// Whether it needs its fence: its processes do, and those that others may start in a place of theirs.
    ///
    /// # Errors
    /// Errors of reading.
    pub fn is_in_use(&self) -> io::Result<bool> {
        match self.is_own() {
            true => self.is_populated(),
            false => Ok(self.id()?.is_some()),
        }
    }

    /// Makes it. An existing one is an error.
    ///
    /// # Errors
    /// Errors of mkdir.
    pub(crate) fn make(&self) -> io::Result<()> {
        if let Some(parent) = self.parent_of_its_own() {
            match make_directory(parent) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => set_mode(parent)?,
                made => made?,
            }
        }
        self.cgroup.create()
    }

    /// The directory between the cgroup of others and this place.
    fn parent_of_its_own(&self) -> Option<&Path> {
        match self.kind {
            Kind::OwnBeneath(_) => self.cgroup.directory().parent(),
            Kind::Own | Kind::OfOthers(_) | Kind::OfDevices(_) => None,
        }
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
        match self.kind {
            Kind::OfOthers(_) => Ok(()),
            Kind::OfDevices(_) if self.exists() => self.cgroup.remove(),
            Kind::OfDevices(_) => Ok(()),
            Kind::Own => self.cgroup.remove(),
            // Another cgroup has its path.
            Kind::OwnBeneath(Some(_)) if self.cgroup.exists() && !self.exists() => Ok(()),
            Kind::OwnBeneath(_) => {
                self.cgroup.remove()?;
                if let Some(parent) = self.parent_of_its_own() {
                    // It stays if it has other fences.
                    let _ = fs::remove_dir(parent);
                }
                Ok(())
            }
        }
    }

    /// The path of its cgroup below the mount of cgroup2.
    pub(crate) fn below(&self, mount: &Path) -> Option<&Path> {
        self.cgroup.directory().strip_prefix(mount).ok()
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

    #[test]
    fn an_own_place_beneath_others_goes_with_its_parent_and_no_other_cgroup_does() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("a.service");
        fs::create_dir(&unit).unwrap();
        let at = |name: &str| Cgroup::at(unit.join("qfence").join(name));
        let [one, two] = ["one", "two"].map(|name| Place::own_beneath(at(name), None));
        one.make().unwrap();
        two.make().unwrap();
        let id = one.id().unwrap().unwrap();
        assert!(one.is_own() && !one.is_at_top());
        let one = one.known_by(id);
        let other = Place::own_beneath(at("one"), Some(id + 1));
        assert!(one.exists() && !other.exists());
        other.remove().unwrap();
        assert!(one.exists());
        one.remove().unwrap();
        assert!(!one.exists() && two.exists());
        two.remove().unwrap();
        assert!(unit.exists() && !unit.join("qfence").exists());
    }
}
