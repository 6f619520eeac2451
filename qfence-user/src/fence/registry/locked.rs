//! Makes a fence, under the registry's lock.

use std::{io, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{Fences, Listed, whereabouts::Whereabouts};
use crate::{
    base::{
        locks::{Exclusive, Mark},
        name::{NameError, derive_name},
    },
    fence::{
        description::Description, devices::FencedDevice, guard::Fence, limits::Limits, place::Place,
    },
    kernel::pins,
};

/// The registry under its lock: no other process makes or removes a fence as long as this lives.
#[derive(Debug)]
pub struct Locked<'a> {
    pub(super) fences: &'a Fences,
    _locks: [Exclusive; 2],
}

/// The message after bpffs was mounted.
pub const MOUNTED_BPFFS: &str = "mounted bpffs, which was not there";

/// A new fence.
#[derive(Debug)]
pub struct Made {
    /// The fence.
    pub fence: Fence,
    /// Whether bpffs had to be mounted.
    pub mounted_bpffs: bool,
    /// Whether it has the place of an orphaned fence, whose programs are still attached: [`Fences::end_replaced`].
    pub has_replaced: bool,
}

impl<'a> Locked<'a> {
    pub(super) fn new(fences: &'a Fences, locks: [Exclusive; 2]) -> Self {
        Self {
            fences,
            _locks: locks,
        }
    }

    /// Makes a fence, empty and without programs. Remains of dead fences must have been cleared before, because they
    /// still have their names.
    ///
    /// `name` is the requested name. Without it, a name is derived from `command`. The description has the cgroup beneath
    /// which the fence is made, if that is not the top.
    ///
    /// # Errors
    /// If the name is in use, or a part cannot be made. Nothing is left then.
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
        let beneath = description.beneath.as_deref();
        limits.enable(&all.hierarchy, beneath)?;
        let mounted_bpffs = all.pins.prepare()?;
        let (name, place) = self.claim(name, command, beneath)?;
        let (cgroup_id, marks) = match self.mark(&name, &place) {
            Ok(marked) => marked,
            Err(error) => {
                place.remove()?;
                return Err(error);
            }
        };
        // From here on, dropping the fence removes its parts.
        let place = place.known_by(cgroup_id);
        let fence = Fence::new(name, place, cgroup_id, marks, all.clone());
        let furnished = limits
            .apply(fence.cgroup())
            .and_then(|()| fence.describe(description));
        self.finish(fence, mounted_bpffs, furnished)
    }

    /// Returns a fence that was furnished, or removes it.
    fn finish(self, fence: Fence, mounted_bpffs: bool, furnished: Result<()>) -> Result<Made> {
        // `logs`, which reads the attempts of an orphan, may have written to the record of a fence that had this name.
        let furnished = furnished.and_then(|()| fence.record_files().remove());
        // Removing the fence takes the locks again.
        drop(self);
        match furnished {
            Ok(()) => Ok(Made {
                fence,
                mounted_bpffs,
                has_replaced: false,
            }),
            Err(error) => Err(fence.give_up(error)),
        }
    }

    /// Makes a fence without programs at a cgroup of others. Remains of dead fences must have been cleared before.
    ///
    /// `name` is the requested name. Without it, a name is derived from `workload`. `path` is that of the cgroup below the
    /// mount of cgroup2, which `description` has as well, and `id` is its id.
    ///
    /// An orphan of the same name at the same cgroup is replaced.
    ///
    /// # Errors
    /// If the name is in use, the cgroup has a fence already, or a part cannot be made. Nothing is left then; the programs
    /// of an orphan that was to be replaced stay attached.
    pub fn attach(
        self,
        name: Option<&str>,
        workload: &Path,
        path: &Path,
        id: u64,
        description: &Description,
    ) -> Result<Made> {
        let all = self.fences;
        if let Some(name) = name {
            all.check_version(name)?;
        }
        let place = Place::of_others(all.hierarchy.other(path), id);
        // An earlier try to replace one may have failed.
        let mut has_replaced = all.pins.has_replaced(id);
        for (found, other) in all.attached()? {
            if other.id()? != Some(id) {
                continue;
            }
            if name == Some(found.as_str()) && all.is_orphan_without_devices(&found)? {
                all.pins.replace(&found, id)?;
                all.policy_file(&found).remove()?;
                all.record_files(&found).remove()?;
                all.descriptions.remove(&found)?;
                has_replaced = true;
                continue;
            }
            bail!(
                "the cgroup {} is that of the fence {found} already; change its policy with `qfence-user set {found}`, or \
                 remove it with `qfence-user rm {found}`",
                path.display()
            );
        }
        let mounted_bpffs = all.pins.prepare()?;
        let (name, on_pins) = self.claim_name(name, workload)?;
        // From here on, dropping the fence removes its parts.
        let fence = Fence::new(name, place, id, vec![on_pins], all.clone());
        let described = fence.describe(description);
        let made = self.finish(fence, mounted_bpffs, described)?;
        Ok(Made {
            has_replaced,
            ..made
        })
    }

    /// Makes a fence without programs that has only devices: its place is a cgroup of its own that no process is in. The
    /// description gets the path of that.
    ///
    /// # Errors
    /// As for [`Locked::attach`].
    pub fn attach_devices(
        self,
        name: Option<&str>,
        workload: &Path,
        description: &mut Description,
    ) -> Result<Made> {
        let all = self.fences;
        if let Some(name) = name {
            all.check_version(name)?;
        }
        let mounted_bpffs = all.pins.prepare()?;
        let (name, on_pins) = self.claim_name(name, workload)?;
        let made = self.make_empty(&name, description);
        let (place, id) = match made {
            Ok(made) => made,
            Err(error) => {
                all.pins.remove(&name)?;
                return Err(error);
            }
        };
        // From here on, dropping the fence removes its parts.
        let fence = Fence::new(name, place, id, vec![on_pins], all.clone());
        let described = fence.describe(description);
        self.finish(fence, mounted_bpffs, described)
    }

    /// Makes the place of a fence that has only devices.
    fn make_empty(&self, name: &str, description: &mut Description) -> Result<(Place, u64)> {
        let hierarchy = &self.fences.hierarchy;
        let cgroup = hierarchy.cgroup(name);
        let context = || format!("cannot make the cgroup {}", cgroup.directory().display());
        cgroup.create().with_context(context)?;
        let id = cgroup.id()?.with_context(context)?;
        let path = cgroup.directory().strip_prefix(hierarchy.mount())?;
        if let Some(attached) = &mut description.attached {
            attached.cgroup = path.to_owned();
        }
        Ok((Place::of_devices(cgroup, id), id))
    }

    /// Claims the name of a fence without a cgroup of its own, by the directory of its pins, which is marked.
    fn claim_name(&self, name: Option<&str>, workload: &Path) -> Result<(String, Mark)> {
        loop {
            let candidate = name.map_or_else(|| derive_name(workload), str::to_owned);
            let place = self.fences.place(&candidate);
            let is_elsewhere = || self.fences.whereabouts(&candidate, None) != Whereabouts::Gone;
            let error = if place.exists() {
                NameError::InUse(candidate)
            } else if self.fences.is_of_another_version(&candidate) || is_elsewhere() {
                NameError::InUseElsewhere(candidate)
            } else {
                let marked = self.mark_pins(&candidate)?;
                return Ok((candidate, marked));
            };
            if name.is_some() {
                return Err(error.into());
            }
        }
    }

    /// Fails if one of these network devices is of another fence: two cannot judge its guest.
    ///
    /// # Errors
    /// If so, or the fences cannot be listed.
    pub fn check_devices(&self, wanted: &[FencedDevice]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        for Listed {
            name, description, ..
        } in self.fences.list_as_found()?
        {
            let theirs = description.map(|found| found.devices).unwrap_or_default();
            let is_same = |one: &&FencedDevice| {
                let same =
                    |other: &FencedDevice| (one.index, one.netns) == (other.index, other.netns);
                theirs.iter().any(same)
            };
            if let Some(device) = wanted.iter().find(is_same) {
                bail!(
                    "the network device {} is of the fence {name} already",
                    device.name
                );
            }
        }
        Ok(())
    }

    /// Lists the fences by name. `elsewhere` has those of other parts of the hierarchy.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn list(&self, elsewhere: Vec<String>) -> Result<Vec<Listed>> {
        let mut names = self.fences.hierarchy.names()?.fences;
        let apart = self.fences.apart()?.into_iter();
        names.extend(apart.filter_map(|(name, place)| place.exists().then_some(name)));
        names.extend(elsewhere);
        names.sort();
        names.dedup();
        let listed = names.into_iter().map(|name| self.fences.look_at(name));
        listed.collect()
    }

    /// Makes the place of a fence, which claims the name.
    fn claim(
        &self,
        name: Option<&str>,
        command: &Path,
        beneath: Option<&Path>,
    ) -> Result<(String, Place)> {
        loop {
            let candidate = name.map_or_else(|| derive_name(command), str::to_owned);
            let registered = self.fences.place(&candidate);
            // A place among all fences is claimed by making it.
            let is_taken = beneath.is_some() && registered.exists();
            if is_taken || !registered.is_at_top() {
                match name {
                    Some(_) => return Err(NameError::InUse(candidate).into()),
                    None => continue,
                }
            }
            if name.is_none() && self.fences.is_of_another_version(&candidate) {
                continue;
            }
            // Dead fences were cleared just before.
            if !registered.cgroup().exists()
                && self.fences.whereabouts(&candidate, None) != Whereabouts::Gone
            {
                match name {
                    Some(_) => return Err(NameError::InUseElsewhere(candidate).into()),
                    None => continue,
                }
            }
            let place = match beneath {
                None => registered,
                Some(path) => self.place_beneath(path, &candidate)?,
            };
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

    /// The place of a new fence beneath a cgroup of others. A process that was killed may have left it without a
    /// description: then it is removed.
    fn place_beneath(&self, path: &Path, name: &str) -> Result<Place> {
        let place = self.fences.hierarchy.place_beneath(path, name, None);
        if place.exists() && !place.is_populated()? && !place.is_marked()? {
            place.remove()?;
        }
        Ok(place)
    }

    /// Marks a new place, and makes and marks the directory of its pins. Processes that share either of them, but
    /// have another registry, check these marks. Also returns the id of the place.
    fn mark(&self, name: &str, place: &Place) -> Result<(u64, Vec<Mark>)> {
        let id = place.cgroup().id()?.context("the cgroup is gone")?;
        let on_place = place.mark()?;
        Ok((id, vec![on_place, self.mark_pins(name)?]))
    }

    /// Makes and marks the directory of the pins of a fence.
    fn mark_pins(&self, name: &str) -> Result<Mark> {
        let directory = match self.fences.pins.create(name) {
            Err(error) if error.exists() => {
                return Err(NameError::InUseElsewhere(name.to_owned()).into());
            }
            made => made?,
        };
        let marked = pins::open(&directory).and_then(|pins| Ok(Mark::set(pins)?));
        marked.inspect_err(|_| {
            // It is empty, and the first error is reported.
            let _ = std::fs::remove_dir(&directory);
        })
    }
}
