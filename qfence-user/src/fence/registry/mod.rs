//! The registry of all fences of the host, in /run/qfence. A fence is registered as long as its description exists,
//! and its supervisor lives as long as that is marked. The lock on the directory keeps other processes from making
//! and removing fences.
//!
//! | module | its one job |
//! |---|---|
//! | `locked` | makes a fence, under the lock |
//! | `list` | lists fences with their conditions |
//! | `leftovers` | clears the remains of dead fences |
//! | `remove` | ends the processes of a fence, and removes it |
//! | `whereabouts` | finds a fence whose place is not visible here |

mod leftovers;
mod list;
mod locked;
mod remove;
mod whereabouts;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Result;

pub use self::{
    leftovers::Note,
    list::{Condition, Listed},
    locked::{Locked, MOUNTED_BPFFS, Made},
};
use crate::{
    base::{locks::Mark, paths::Paths},
    fence::{
        description::{Description, Descriptions, Seen},
        hierarchy::Hierarchy,
        id::{FenceId, Ids},
        place::Place,
    },
    kernel::{link_info, pins::Pins},
    record::files::RecordFiles,
    stored_policy::{PolicyFile, resolved_names::NamesFile},
};

/// All fences of the host.
#[derive(Clone, Debug)]
pub struct Fences {
    hierarchy: Hierarchy,
    pins: Pins,
    descriptions: Descriptions,
}

impl Fences {
    /// Opens the registry, to make or remove fences.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or others than root can change it or the registry.
    pub fn open(paths: &Paths) -> Result<Self> {
        let fences = Self::look(paths)?;
        fences.hierarchy.prepare()?;
        Ok(fences)
    }

    /// Opens the registry, to list fences or change their policies. Makes nothing.
    ///
    /// # Errors
    /// If there is no cgroup2 hierarchy, or others than root can change the registry.
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

    /// Waits for the lock under which fences are made and removed.
    ///
    /// # Errors
    /// If a lock cannot be taken, or [`Interrupted`](crate::base::interruptible::Interrupted).
    pub fn lock(&self) -> Result<Locked<'_>> {
        // The second lock excludes processes that see this hierarchy and these pins, but have another registry.
        let locks = [self.descriptions.lock()?, self.hierarchy.lock()?];
        Ok(Locked::new(self, locks))
    }

    /// The place of a fence: the one that its description names, or a cgroup of its own.
    #[must_use]
    pub fn place(&self, name: &str) -> Place {
        let described = self.descriptions.look(name).ok().flatten();
        let Some(Seen {
            ids: Ids {
                cgroup: Some(id), ..
            },
            attached,
            beneath,
            ..
        }) = described
        else {
            return self.hierarchy.place(name);
        };
        match (attached, beneath) {
            (Some(path), _) => {
                let cgroup = self.hierarchy.other(&path);
                let own = self.hierarchy.cgroup(name);
                match cgroup.directory() == own.directory() {
                    true => Place::of_devices(cgroup, id),
                    false => Place::of_others(cgroup, id),
                }
            }
            (None, Some(path)) => self.hierarchy.place_beneath(&path, name, Some(id)),
            (None, None) => self.hierarchy.place(name),
        }
    }

    /// The mount of the cgroups.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The fences that are attached to cgroups of others, with their places.
    ///
    /// # Errors
    /// If the registry cannot be read.
    pub fn attached(&self) -> Result<Vec<(String, Place)>> {
        let mut apart = self.apart()?;
        apart.retain(|(_, place)| !place.is_own());
        Ok(apart)
    }

    /// The fences whose descriptions cannot be read, with the ids of the cgroups that their programs judge.
    ///
    /// # Errors
    /// If the registry or their links cannot be read.
    pub fn undescribed(&self) -> Result<Vec<(String, Vec<u64>)>> {
        let mut names: BTreeSet<String> = self.descriptions.names()?.fences.into_iter().collect();
        names.extend(self.pins.names()?.fences);
        names.retain(|name| self.description(name).is_none());
        let judged = names.into_iter().map(|name| {
            let cgroups = link_info::cgroups_of(&self.pins(&name))?;
            Ok((name, cgroups.into_iter().flatten().collect()))
        });
        judged.collect()
    }

    /// The fences whose cgroups are not among those of all fences, with their places.
    ///
    /// # Errors
    /// If the registry cannot be read.
    pub(super) fn apart(&self) -> Result<Vec<(String, Place)>> {
        let names = self.descriptions.names()?.fences.into_iter();
        let found = names.map(|name| (self.place(&name), name));
        let apart = found.filter(|(place, _)| !place.is_at_top());
        Ok(apart.map(|(place, name)| (name, place)).collect())
    }

    /// Whether the fence `name` is registered with this id.
    ///
    /// # Errors
    /// If its description cannot be read.
    pub(crate) fn is_registered(&self, name: &str, id: &FenceId) -> Result<bool> {
        let seen = self.descriptions.look(name)?;
        Ok(seen.is_some_and(|seen| seen.ids.id.as_ref() == Some(id)))
    }

    /// The file of a fence's policy.
    #[must_use]
    pub fn policy_file(&self, name: &str) -> PolicyFile {
        PolicyFile::new(self.descriptions.directory(), name, &self.pins(name))
    }

    /// The file of the names behind a fence's addresses.
    #[must_use]
    pub fn names_file(&self, name: &str) -> NamesFile {
        NamesFile::new(self.descriptions.directory(), name)
    }

    /// The files of a fence's record.
    #[must_use]
    pub fn record_files(&self, name: &str) -> RecordFiles {
        RecordFiles::new(self.descriptions.directory(), name)
    }

    /// The description of a fence; `None` if it cannot be read.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<Description> {
        self.descriptions.read(name)
    }

    /// The version of the qfence that made the fence `name`; `None` if no part of it has one. The pins are checked
    /// first: a program of another version could do the most harm to them.
    pub(super) fn version_of(&self, name: &str) -> Result<Option<u32>> {
        let pinned = self.pins.version(name)?;
        Ok(pinned.or_else(|| self.descriptions.version_of(name)))
    }

    /// All paths of a fence, except its cgroup.
    pub(super) fn paths_of(&self, name: &str) -> Vec<PathBuf> {
        let files = self.record_files(name);
        vec![
            self.pins(name),
            self.descriptions.path(name),
            self.policy_file(name).path().to_owned(),
            files.path().to_owned(),
            files.old_path().to_owned(),
            self.names_file(name).path(),
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

    /// Detaches the programs of the orphan that a fence has replaced, which is in force now. `id` is that of their cgroup.
    ///
    /// # Errors
    /// If one cannot be detached. Then both fences judge.
    pub fn end_replaced(&self, id: u64) -> Result<()> {
        self.pins.end_replaced(id)
    }

    /// The names of other fences that judge some processes of the cgroup at a path below the mount as well, since their cgroups
    /// are above or below it.
    ///
    /// # Errors
    /// If the registry cannot be read.
    pub fn overlapping(&self, name: &str, path: &Path) -> Result<Vec<String>> {
        let mount = self.hierarchy.mount();
        let overlaps = |place: &Place| {
            let other = place.below(mount).filter(|_| place.exists());
            other.is_some_and(|other| other.starts_with(path) || path.starts_with(other))
        };
        let all = self.apart()?.into_iter();
        let others = all.filter(|(other, place)| other != name && overlaps(place));
        Ok(others.map(|(other, _)| other).collect())
    }

    /// The directory of a fence's links.
    #[must_use]
    pub fn pins(&self, name: &str) -> PathBuf {
        self.pins.directory(name)
    }

    /// Whether the supervisor of the fence `name` lives. Takes no lock and does not wait.
    fn is_supervised(&self, name: &str) -> Result<bool> {
        let place = self.place(name);
        match self.descriptions.look(name) {
            // Only the description and the pins are marked.
            Ok(Some(seen)) if seen.attached.is_some() => Ok(seen.is_supervised),
            Ok(Some(seen)) if seen.is_supervised && seen.ids.cgroup == place.cgroup().id()? => {
                Ok(true)
            }
            // The description may be unreadable, or belong to another fence, whose place is not visible here.
            _ => place.is_marked(),
        }
    }
}

/// The message for a fence with processes that do not end.
pub(crate) fn stays(name: &str) -> String {
    format!(
        "the fence {name} stays in force, until `qfence-user rm {name}` or the next command of qfence after \
         these processes have ended"
    )
}
