//! A fence as a whole: a cgroup, the links pinned for it, and its description.
//!
//! The cgroup's directory is the fence: to make it is to claim the name, and its mark is the
//! supervisor's, so that the kernel says when that is gone.

use std::{cell::Cell, path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow};

use crate::{
    base::{locks::Mark, say::say},
    fence::{
        cgroup::Cgroup,
        description::State,
        registry::{Fences, stays},
    },
    record::keep::Kept,
    store::Store,
};

/// How long killed processes get to be gone. A process in an uninterruptible sleep stays longer.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a process has that has just made a fence's cgroup and the directory of its pins.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// The cgroup's id.
    pub(crate) id: u64,
    /// That there is a supervisor, on both.
    pub(crate) _marks: [Mark; 2],
}

/// A fence that this process supervises.
#[derive(Debug)]
pub struct Fence {
    name: String,
    cgroup: Cgroup,
    all: Fences,
    claimed: Claimed,
    /// Whether there is something to remove.
    standing: bool,
    /// Whether something in it was killed, and has not ended in time.
    stuck: Cell<bool>,
}

impl Fence {
    /// The fence of a cgroup that was just made and marked; from here on, dropping it removes it.
    pub(crate) fn new(name: String, cgroup: Cgroup, claimed: Claimed, all: Fences) -> Self {
        Self {
            name,
            cgroup,
            all,
            claimed,
            standing: true,
            stuck: Cell::new(false),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Where its policy is kept.
    #[must_use]
    pub fn store(&self) -> Store {
        self.all.store(&self.name)
    }

    /// Where its record is kept.
    #[must_use]
    pub fn kept(&self) -> Kept {
        self.all.kept(&self.name)
    }

    /// The directory for its links.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.all.pins(&self.name)
    }

    /// Describes it anew.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn describe(&self, state: &State) -> Result<()> {
        self.all.describe(&self.name, self.claimed.id, state)
    }

    /// Kills what is left in it, and waits for its end as long as that can be expected to take. What is left then
    /// [`Fence::remove`] reports, which does not wait for it again.
    pub fn empty(&self) {
        self.stuck.set(self.cgroup.kill_all(KILL_PATIENCE).is_err());
    }

    /// Kills what is left in it and removes it.
    ///
    /// # Errors
    /// All that went wrong, in one; what could be removed is. A fence that something is left in stays in force.
    pub fn remove(mut self) -> Result<()> {
        self.standing = false;
        self.take_down()
    }

    /// Leaves it in place, without a supervisor, for the processes that are in it.
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
        if let Err(error) = self.cgroup.kill_all(patience) {
            if self
                .cgroup
                .is_populated()
                .is_ok_and(|is_populated| is_populated)
            {
                return Err(error.context(stays(&self.name)));
            }
            errors.push(error);
        }
        let registry = self.all.hierarchy().lock();
        // Without the lock the rest is done all the same: this process holds the fence's own.
        errors.extend(registry.as_ref().err().map(|error| anyhow!("{error:#}")));
        errors.extend(self.all.remove_all(&self.name, Some(self.claimed.id)));
        fail_with_all(errors).with_context(|| format!("removing the fence {}", self.name))
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if self.standing
            && let Err(error) = self.take_down()
        {
            say(format_args!("{error:#}"));
        }
    }
}

/// One error of all of them, if there are any.
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
