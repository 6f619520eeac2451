//! Clears what dead fences left: those without supervisor and without processes.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use anyhow::Result;

use super::{Locked, whereabouts::Whereabouts};

/// What there is to say of what was found.
#[derive(Debug)]
pub enum Note {
    /// The name of a fence that is dead: what it left is being cleared.
    Clearing(String),
    /// Something could not be cleared.
    Failed(anyhow::Error),
    /// Links of fences that have ended could not be cleared.
    Ended(anyhow::Error),
    /// Something has no name that a fence can have.
    NoName(PathBuf),
    /// Whether a fence is dead cannot be told.
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
            Self::Clearing(name) => write!(f, "clearing what was left of the fence {name}"),
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Ended(error) => write!(f, "warning: {error:#}"),
            Self::NoName(path) => write!(
                f,
                "warning: {path:?} has no name that a fence can have: it is left alone"
            ),
            Self::Unknown { name, why } => write!(
                f,
                "warning: the cgroup of the fence {name} is not seen here, and whether there is one cannot be told: {why}. \
                 The fence is left alone"
            ),
        }
    }
}

impl Locked<'_> {
    /// Clears what dead fences left. What cannot be cleared keeps nothing else from being so; `tell` is given it, and what
    /// is cleared. Returns the names of fences that are of another part of the hierarchy, or may be, and of those of
    /// another version: they are left alone.
    ///
    /// # Errors
    /// If what there is cannot be read.
    pub fn clear(&self, tell: &mut dyn FnMut(&Note)) -> Result<Vec<String>> {
        let all = self.fences;
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
        let mut elsewhere = Vec::new();
        for name in names {
            if all.is_of_another_version(&name) {
                elsewhere.push(name);
                continue;
            }
            let place = all.place(&name);
            let id = place.cgroup().id()?;
            if id.is_some() && (all.is_supervised(&name)? || place.is_populated()?) {
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
            for error in all.remove_all(&name, id) {
                tell(&Note::Failed(error));
            }
        }
        Ok(elsewhere)
    }
}
