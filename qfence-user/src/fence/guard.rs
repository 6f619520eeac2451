//! A fence that this process supervises, as a whole: its place, pins and description.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};

use crate::{
    base::{console::notify, locks::Mark},
    fence::{
        cgroup::Cgroup,
        description::Description,
        id::{FenceId, Ids},
        place::Place,
        registry::{Fences, stays},
    },
    record::files::RecordFiles,
    stored_policy::{PolicyFile, resolved_names::NamesFile},
};

/// How long to wait for killed processes to end. A process in uninterruptible sleep takes longer.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A fence that this process supervises.
#[derive(Debug)]
pub struct Fence {
    name: String,
    id: FenceId,
    place: Place,
    /// The id of the cgroup that is its place.
    cgroup_id: u64,
    all: Fences,
    /// The marks that show a supervisor: on the place, the pins, and every description that was written. A process
    /// that opened an older description must find it marked, too.
    marks: RefCell<Vec<Mark>>,
    /// Whether the fence is still to be removed.
    standing: bool,
    /// Whether some process was killed and has not ended in time.
    stuck: Cell<bool>,
}

impl Fence {
    /// A fence with a new, marked place that has this id. From here on, dropping it removes the fence.
    pub(crate) fn new(
        name: String,
        place: Place,
        cgroup_id: u64,
        marks: Vec<Mark>,
        all: Fences,
    ) -> Self {
        Self {
            name,
            id: FenceId::random(),
            place,
            cgroup_id,
            all,
            marks: marks.into(),
            standing: true,
            stuck: Cell::new(false),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup that its programs are attached to.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        self.place.cgroup()
    }

    /// The id of that cgroup.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    /// The file of its policy.
    #[must_use]
    pub fn policy_file(&self) -> PolicyFile {
        self.all.policy_file(&self.name)
    }

    /// The file of the names behind its addresses.
    #[must_use]
    pub fn names_file(&self) -> NamesFile {
        self.all.names_file(&self.name)
    }

    /// The files of its record.
    #[must_use]
    pub fn record_files(&self) -> RecordFiles {
        self.all.record_files(&self.name)
    }

    /// The directory of its links.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.all.pins(&self.name)
    }

    /// Replaces its description.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn describe(&self, description: &Description) -> Result<()> {
        let ids = Ids {
            id: Some(self.id.clone()),
            cgroup: Some(self.cgroup_id),
        };
        let mark = self.all.describe(&self.name, &ids, description)?;
        self.marks.borrow_mut().push(mark);
        Ok(())
    }

    /// Whether processes run in it.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn is_populated(&self) -> Result<bool> {
        Ok(self.place.is_populated()?)
    }

    /// Kills the processes in it, and waits for their end, for a limited time. [`Fence::remove`] reports those that
    /// are left, and does not wait again.
    pub fn empty(&self) {
        self.stuck.set(self.place.empty(KILL_PATIENCE).is_err());
    }

    /// Kills the processes in it, and removes it.
    ///
    /// # Errors
    /// All failures in one error. Every step is tried. A fence with processes left stays in force.
    pub fn remove(mut self) -> Result<()> {
        self.standing = false;
        self.take_down()
    }

    /// Removes the parts of a fence that could not be completed. Returns the reason for that, with further errors.
    pub fn give_up(self, why: anyhow::Error) -> anyhow::Error {
        match self.remove() {
            Ok(()) => why,
            Err(error) => why.context(format!("{error:#}")),
        }
    }

    /// Whether it is still registered: another process can remove it, and make another one with its name.
    ///
    /// # Errors
    /// If its description cannot be read.
    pub fn is_registered(&self) -> Result<bool> {
        self.all.is_registered(&self.name, &self.id)
    }

    /// Whether it is still registered. Waits until no other process is making or removing fences.
    ///
    /// # Errors
    /// If the registry cannot be locked, or its description cannot be read.
    pub fn is_registered_now(&self) -> Result<bool> {
        let _registry = self.all.lock()?;
        self.is_registered()
    }

    /// Whether its place still exists.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.place.exists()
    }

    /// Leaves it in place without a supervisor, for the processes in it.
    pub fn leave(mut self) {
        self.standing = false;
    }

    fn take_down(&self) -> Result<()> {
        let patience = if self.stuck.get() {
            Duration::ZERO
        } else {
            KILL_PATIENCE
        };
        let mut errors = Vec::new();
        if let Err(error) = self.place.empty(patience) {
            if self
                .place
                .is_populated()
                .is_ok_and(|is_populated| is_populated)
            {
                return Err(error.context(stays(&self.name)));
            }
            errors.push(error);
        }
        let registry = self.all.lock();
        // Without the lock the rest is done all the same: as long as the fence is marked, nobody else removes it.
        errors.extend(registry.as_ref().err().map(|error| anyhow!("{error:#}")));
        errors.extend(
            self.all
                .remove_all(&self.name, &self.place, Some(self.cgroup_id)),
        );
        fail_with_all(errors).with_context(|| format!("removing the fence {}", self.name))
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if self.standing
            && let Err(error) = self.take_down()
        {
            notify(format_args!("{error:#}"));
        }
    }
}

/// Joins errors to one, if there are any.
pub(crate) fn fail_with_all(errors: Vec<anyhow::Error>) -> Result<()> {
    if errors.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
    Err(anyhow!("{}", all.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_told() {
        let error = fail_with_all(vec![anyhow!("one"), anyhow!("two")]).unwrap_err();
        assert_eq!(error.to_string(), "one; two");
        assert!(fail_with_all(Vec::new()).is_ok());
    }
}
