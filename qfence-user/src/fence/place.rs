//! The place of a fence: the cgroup that its programs are attached to.
//!
//! The place decides how it is made, how its processes are ended, and what happens to it when its fence is removed.
//! The registry is independent of it: the name, the lock and the supervisor's mark are files of /run/qfence.

use std::{fs::File, io, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::cgroup::{Cgroup, is_gone};
use crate::base::locks::Mark;

/// A cgroup of the fence's own. It is made for the fence, and removed with it after its processes were killed.
#[derive(Clone, Debug)]
pub struct Place {
    cgroup: Cgroup,
}

impl Place {
    /// The place at a cgroup, whether it exists or not.
    pub(crate) fn new(cgroup: Cgroup) -> Self {
        Self { cgroup }
    }

    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
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

    /// Whether it is marked. A missing one is not. Takes no lock.
    ///
    /// # Errors
    /// If it cannot be opened or queried.
    pub(crate) fn is_marked(&self) -> Result<bool> {
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
        self.cgroup.is_populated()
    }

    /// Asks the processes there to end, and waits for that.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub(super) fn ask_to_end(&self, patience: Duration) -> io::Result<()> {
        self.cgroup.signal(Signal::SIGTERM)?;
        // A stopped process acts only on this signal and SIGKILL.
        self.cgroup.signal(Signal::SIGCONT)?;
        self.cgroup.wait_empty(patience).map(drop)
    }

    /// Kills the processes there, and waits until none is left.
    ///
    /// # Errors
    /// If some are left after `patience`.
    pub(super) fn empty(&self, patience: Duration) -> Result<()> {
        self.cgroup.kill_all(patience)
    }

    /// Removes it. It must have no processes.
    ///
    /// # Errors
    /// Errors of rmdir; a missing cgroup is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        self.cgroup.remove()
    }
}
