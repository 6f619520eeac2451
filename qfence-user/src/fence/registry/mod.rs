//! All fences of the host. Their registry is /run/qfence: a fence is there as long as its description is, its supervisor
//! lives as long as that is marked, and the lock on the directory keeps others from making and removing fences.
//!
//! | module | its one job |
//! |---|---|
//! | `locked` | makes a fence, while nobody else makes or removes one |
//! | `list` | what fences are like, as they are found |
//! | `leftovers` | clears what dead fences left |
//! | `remove` | ends what runs in a fence, and removes it |
//! | `whereabouts` | where a fence is whose place is not seen here |

mod leftovers;
mod list;
mod locked;
mod remove;
mod whereabouts;

use std::path::PathBuf;

use anyhow::Result;

pub use self::{
    leftovers::Note,
    list::{Condition, Listed},
    locked::{Locked, MOUNTED_BPFFS, Made},
};
use crate::{
    base::{locks::Mark, paths::Paths},
    fence::{
        description::{Description, Descriptions},
        hierarchy::Hierarchy,
        id::Ids,
        place::Place,
    },
    kernel::pins::Pins,
    record::files::RecordFiles,
    stored_policy::PolicyFile,
};

/// All fences of the host.
#[derive(Clone, Debug)]
pub struct Fences {
    hierarchy: Hierarchy,
    pins: Pins,
    descriptions: Descriptions,
}

impl Fences {
    /// Finds where fences are on this host, to make or remove some.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or somebody else than root can change it or what is known of fences.
    pub fn open(paths: &Paths) -> Result<Self> {
        let fences = Self::look(paths)?;
        fences.hierarchy.prepare()?;
        Ok(fences)
    }

    /// Finds where fences are on this host, to look at them or change their policies: nothing is made.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or somebody else than root can change what is known of fences.
    pub fn look(paths: &Paths) -> Result<Self> {
        let fences = Self {
            hierarchy: Hierarchy::find(&paths.mountinfo)?,
            pins: Pins::new(&paths.bpffs),
            descriptions: Descriptions::new(&paths.run),
        };
        fences.descriptions.check()?;
        fences.pins.check()?;
        Ok(fences)
    }

    /// Waits until nobody else makes or removes fences.
    ///
    /// # Errors
    /// If a lock cannot be taken, or [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Locked<'_>> {
        // Those of another registry, who see this hierarchy and these pins, are kept out by the other lock.
        let locks = [self.descriptions.lock()?, self.hierarchy.lock()?];
        Ok(Locked::new(self, locks))
    }

    /// The place of a fence.
    #[must_use]
    pub fn place(&self, name: &str) -> Place {
        self.hierarchy.place(name)
    }

    /// Where the policy of a fence is kept.
    #[must_use]
    pub fn policy_file(&self, name: &str) -> PolicyFile {
        PolicyFile::new(self.descriptions.directory(), name, &self.pins(name))
    }

    /// Where the record of a fence is kept.
    #[must_use]
    pub fn record_files(&self, name: &str) -> RecordFiles {
        RecordFiles::new(self.descriptions.directory(), name)
    }

    /// What is known of a fence beside that; `None` if nothing can be read.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<Description> {
        self.descriptions.read(name)
    }

    /// The version of the qfence that made the fence `name`; `None` if nothing there is has one. The pins come first: they
    /// are what a program of another version could do most harm to.
    pub(super) fn version_of(&self, name: &str) -> Result<Option<u32>> {
        let pinned = self.pins.version(name)?;
        Ok(pinned.or_else(|| self.descriptions.version_of(name)))
    }

    /// What there is of a fence beside its cgroup.
    pub(super) fn paths_of(&self, name: &str) -> Vec<PathBuf> {
        let files = self.record_files(name);
        vec![
            self.pins(name),
            self.descriptions.path(name),
            self.policy_file(name).path().to_owned(),
            files.path().to_owned(),
            files.old_path().to_owned(),
        ]
    }

    /// Describes the fence `name`, and marks it as supervised by this process.
    pub(crate) fn describe(
        &self,
        name: &str,
        ids: &Ids,
        description: &Description,
    ) -> Result<Mark> {
        self.descriptions.write(name, ids, description)
    }

    /// The directory for the links of a fence.
    #[must_use]
    pub fn pins(&self, name: &str) -> PathBuf {
        self.pins.directory(name)
    }

    /// Whether the supervisor of the fence `name` lives. Takes nothing that another could see, and waits for nobody.
    fn is_supervised(&self, name: &str) -> Result<bool> {
        let place = self.place(name);
        match self.descriptions.look(name) {
            Ok(Some(seen)) if seen.is_supervised && seen.ids.cgroup == place.cgroup().id()? => {
                Ok(true)
            }
            // The description may be that of another fence, whose place is not seen here, or cannot be read.
            _ => place.is_marked(),
        }
    }
}

/// What is said of a fence that has processes which do not end.
pub(crate) fn stays(name: &str) -> String {
    format!(
        "the fence {name} stays in force, until `qfence-user rm {name}` or the next command of qfence after \
         these processes have ended"
    )
}
