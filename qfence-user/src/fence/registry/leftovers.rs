//! Clears the remains of dead fences: those without a supervisor and without processes.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use anyhow::Result;

use super::{Locked, whereabouts::Whereabouts};
use crate::base::notify_directory;

/// A report on remains of fences.
#[derive(Debug)]
pub enum Note {
    /// A dead fence of this name is being cleared.
    Clearing(String),
    /// A removal failed.
    Failed(anyhow::Error),
    /// Kept links of ended fences could not be removed.
    Ended(anyhow::Error),
    /// A path whose name no fence can have.
    NoName(PathBuf),
    /// It is unknown whether a fence is dead.
    Unknown {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clearing(name) => write!(f, "clearing the remains of the fence {name}"),
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Ended(error) => write!(f, "warning: {error:#}"),
            Self::NoName(path) => write!(
                f,
                "warning: {path:?} has no name that a fence can have: it is left alone"
            ),
            Self::Unknown { name, why } => write!(
                f,
                "warning: the cgroup of the fence {name} is not visible here, and it is unknown whether it exists: {why}. \
                 The fence is left alone"
            ),
        }
    }
}

impl Locked<'_> {
    /// Clears the remains of dead fences. A failure does not stop the others. `tell` gets a report on each fence that
    /// is cleared, and on each failure. Returns the names of fences that are left alone: those that are or may be in
    /// another part of the hierarchy, and those of another version.
    ///
    /// # Errors
    /// If the registry cannot be read.
    pub fn clear(&self, tell: &mut dyn FnMut(&Note)) -> Result<Vec<String>> {
        let all = self.fences;
        if let Err(error) = notify_directory::sweep(all.descriptions.directory()) {
            tell(&Note::Failed(error.into()));
        }
        for error in all.pins.clear_ended()? {
            tell(&Note::Ended(error));
        }
        let mut names = BTreeSet::new();
        for found in [
            all.hierarchy.names()?,
            all.pins.names()?,
            all.descriptions.names()?,
        ] {
            names.extend(found.fences);
            for path in found.others {
                tell(&Note::NoName(path));
            }
        }
        names.extend(all.pins.with_devices()?);
        let mut elsewhere = Vec::new();
        for name in names {
            if all.is_of_another_version(&name) {
                elsewhere.push(name);
                continue;
            }
            let place = all.place(&name);
            let id = place.id()?;
            let is_seen = id.is_some() || !place.is_own();
            let is_used = place.is_in_use()? && !all.has_ended_with_devices(&name);
            if is_seen && (all.is_supervised(&name)? || is_used) {
                continue;
            }
            if id.is_none() {
                match all.whereabouts(&name, None) {
                    Whereabouts::Gone => {}
                    Whereabouts::Elsewhere => {
                        elsewhere.push(name);
                        continue;
                    }
                    Whereabouts::Unknown(why) => {
                        tell(&Note::Unknown {
                            name: name.clone(),
                            why,
                        });
                        elsewhere.push(name);
                        continue;
                    }
                }
            }
            tell(&Note::Clearing(name.clone()));
            for error in all.remove_all(&name, &place, id) {
                tell(&Note::Failed(error));
            }
        }
        Ok(elsewhere)
    }
}
