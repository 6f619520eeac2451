//! Makes a fence, while nobody else makes or removes one.

use std::{io, path::Path};

use anyhow::{Context as _, Result};

use super::{Fences, Listed, whereabouts::Whereabouts};
use crate::{
    base::{
        locks::{Exclusive, Mark},
        name::{NameError, derive_name},
    },
    fence::{description::Description, guard::Fence, limits::Limits, place::Place},
    kernel::pins,
};

/// All fences, which nobody else makes or removes as long as this lives.
#[derive(Debug)]
pub struct Locked<'a> {
    pub(super) fences: &'a Fences,
    _locks: [Exclusive; 2],
}

/// What is said when bpffs was mounted.
pub const MOUNTED_BPFFS: &str = "mounted bpffs, which was not there";

/// A fence that was just made.
#[derive(Debug)]
pub struct Made {
    /// It.
    pub fence: Fence,
    /// Whether bpffs was not there, and was mounted.
    pub mounted_bpffs: bool,
}

impl<'a> Locked<'a> {
    pub(super) fn new(fences: &'a Fences, locks: [Exclusive; 2]) -> Self {
        Self {
            fences,
            _locks: locks,
        }
    }

    /// Makes a fence, empty and without programs. What dead ones left is to be cleared before: it keeps its name.
    ///
    /// `name` is the name asked for; otherwise one is derived from `command`.
    ///
    /// # Errors
    /// If the name is in use, or anything cannot be made; nothing is left then.
    pub fn create(
        self,
        name: Option<&str>,
        command: &Path,
        limits: &Limits,
        description: &Description,
    ) -> Result<Made> {
        let all = self.fences;
        if let Some(name) = name {
            all.check_version(name)?;
        }
        limits.enable(&all.hierarchy)?;
        let mounted_bpffs = all.pins.prepare()?;
        let (name, place) = self.claim(name, command)?;
        let (cgroup_id, marks) = match self.mark(&name, &place) {
            Ok(marked) => marked,
            Err(error) => {
                place.remove()?;
                return Err(error);
            }
        };
        // From here on, dropping the fence removes what there is of it.
        let fence = Fence::new(name, place, cgroup_id, marks, all.clone());
        let furnished = limits
            .apply(fence.cgroup())
            .and_then(|()| fence.describe(description));
        // Removing the fence takes the locks anew.
        drop(self);
        match furnished {
            Ok(()) => Ok(Made {
                fence,
                mounted_bpffs,
            }),
            Err(error) => Err(fence.give_up(error)),
        }
    }

    /// Lists the fences by name; `elsewhere` are those of other parts of the hierarchy.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn list(&self, elsewhere: Vec<String>) -> Result<Vec<Listed>> {
        let mut names = self.fences.hierarchy.names()?.fences;
        names.extend(elsewhere);
        names.sort();
        names.dedup();
        let listed = names.into_iter().map(|name| self.fences.look_at(name));
        listed.collect()
    }

    /// Makes the place of a fence: to make it is to claim the name.
    fn claim(&self, name: Option<&str>, command: &Path) -> Result<(String, Place)> {
        loop {
            let candidate = name.map_or_else(|| derive_name(command), str::to_owned);
            let place = self.fences.place(&candidate);
            if name.is_none() && self.fences.is_of_another_version(&candidate) {
                continue;
            }
            // What is dead was cleared just now.
            if !place.cgroup().exists()
                && self.fences.whereabouts(&candidate, None) != Whereabouts::Gone
            {
                match name {
                    Some(_) => return Err(NameError::InUseElsewhere(candidate).into()),
                    None => continue,
                }
            }
            match place.make() {
                Ok(()) => return Ok((candidate, place)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if name.is_some() {
                        return Err(NameError::InUse(candidate).into());
                    }
                }
                Err(error) => {
                    let directory = place.cgroup().directory();
                    return Err(error).with_context(|| {
                        format!("cannot make the cgroup {}", directory.display())
                    });
                }
            }
        }
    }

    /// Marks a place that was just made, and makes the directory of its pins, marked as well: those who share either and
    /// not the registry go by that. Returns the id of the place, too.
    fn mark(&self, name: &str, place: &Place) -> Result<(u64, Vec<Mark>)> {
        let id = place.cgroup().id()?.context("the cgroup is gone")?;
        let on_place = place.mark()?;
        let directory = match self.fences.pins.create(name) {
            Err(error) if is_there_already(&error) => {
                return Err(NameError::InUseElsewhere(name.to_owned()).into());
            }
            made => made?,
        };
        let marked = pins::open(&directory).and_then(|pins| Ok(Mark::set(pins)?));
        let on_pins = marked.inspect_err(|_| {
            // It is empty, and what went wrong is being told.
            let _ = std::fs::remove_dir(&directory);
        })?;
        Ok((id, vec![on_place, on_pins]))
    }
}

/// Whether what could not be made is there already.
fn is_there_already(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}
