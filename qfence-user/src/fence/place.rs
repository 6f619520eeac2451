//! Where a fence is: the cgroup that its programs are attached to.
//!
//! How a place is made, how what runs there is ended, and what becomes of it when its fence is removed is its own
//! affair. The registry does not depend on it: a name, the lock and the mark of a supervisor are files of /run/qfence.

use std::{fs::File, io, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::cgroup::{Cgroup, is_gone};
use crate::base::locks::Mark;

/// A cgroup of the fence's own: made for it, and killed and removed with it.
#[derive(Clone, Debug)]
pub struct Place {
    cgroup: Cgroup,
}

impl Place {
    /// The place that is this cgroup, whether it exists or not.
    pub(crate) fn new(cgroup: Cgroup) -> Self {
        Self { cgroup }
    }

    /// The cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Makes it; an error if it exists.
    ///
    /// # Errors
    /// What mkdir fails with.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.cgroup.create()
    }

    /// Marks it as in use by this process, as long as the mark and the process live. This is for those who see the cgroup
    /// and have another /run/qfence, in a container or while `verify` runs: an empty cgroup that is in use is no leftover.
    ///
    /// # Errors
    /// If it cannot be opened or marked.
    pub(crate) fn mark(&self) -> Result<Mark> {
        let directory = self.cgroup.directory();
        Mark::set(self.cgroup.open()?)
            .with_context(|| format!("cannot mark {}", directory.display()))
    }

    /// Whether it is marked; one that is gone is not. Takes nothing that another could see.
    ///
    /// # Errors
    /// If it cannot be opened or asked about.
    pub(crate) fn is_marked(&self) -> Result<bool> {
        let directory = self.cgroup.directory();
        let context = || format!("cannot ask who uses {}", directory.display());
        match File::open(directory) {
            Ok(directory) => Mark::is_on(&directory).with_context(context),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error).with_context(context),
        }
    }

    /// Whether something runs there.
    ///
    /// # Errors
    /// What reading fails with; a place that is gone has nothing.
    pub fn is_populated(&self) -> io::Result<bool> {
        self.cgroup.is_populated()
    }

    /// Asks what runs there to end, and waits for that.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub(super) fn ask_to_end(&self, patience: Duration) -> io::Result<()> {
        self.cgroup.signal(Signal::SIGTERM)?;
        // A stopped process acts on no signal but this one and SIGKILL.
        self.cgroup.signal(Signal::SIGCONT)?;
        self.cgroup.wait_empty(patience).map(drop)
    }

    /// Ends what runs there, and waits until nothing is left.
    ///
    /// # Errors
    /// If something is left after `patience`.
    pub(super) fn empty(&self, patience: Duration) -> Result<()> {
        self.cgroup.kill_all(patience)
    }

    /// Removes it, in which nothing runs any more.
    ///
    /// # Errors
    /// What rmdir fails with; that it is gone already is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        self.cgroup.remove()
    }
}
