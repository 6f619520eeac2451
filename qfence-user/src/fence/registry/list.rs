//! Lists fences with their conditions. It clears nothing, changes nothing and waits for nothing.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use nix::unistd::Pid;
use qfence_common::Hook;

use super::{Fences, whereabouts::Whereabouts};
use crate::{
    base::paths::Paths,
    fence::{description::Description, devices::FencedDevice, hierarchy::Hierarchy},
    kernel::snapshot::Snapshot,
    policy::Policy,
};

/// The condition of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Its supervisor lives.
    Running,
    /// Its supervisor is gone. Its processes are fenced by the last policy.
    Orphaned,
    /// It was left to itself when it was attached. Its processes are fenced by the last policy.
    Detached,
    /// It has processes, but the links that fenced them are gone.
    Unfenced,
    /// Another version of qfence made it. It is left alone.
    Incompatible,
    /// Its cgroup is, or may be, in a part of the hierarchy that is not visible here. It is left alone.
    Elsewhere,
}

impl Condition {
    /// Its name in output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Orphaned => "orphaned",
            Self::Detached => "detached",
            Self::Unfenced => "UNFENCED",
            Self::Incompatible => "incompatible",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// A fence, for `ps`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The version of the qfence that made it; `None` if it cannot be read.
    pub abi: Option<u32>,
    /// Its condition.
    pub condition: Condition,
    /// Its processes.
    pub pids: Vec<Pid>,
    /// Its description, if there is one.
    pub description: Option<Description>,
    /// Its policy, if it can be read.
    pub policy: Option<Policy>,
    /// Its counters, if they can be read.
    pub counted: Option<Snapshot>,
    /// Whether its devices are not fenced yet, because it is being started.
    pub is_starting: bool,
    /// Its network devices whose frames are not all judged: name and reason. None while it is being started.
    pub unfenced: Vec<(String, String)>,
}

impl Fences {
    /// Lists the fences by name without a lock. A fence that is made or removed meanwhile may be missing. Dead
    /// fences, and those in another part of the hierarchy, are left out.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn list_as_found(&self) -> Result<Vec<Listed>> {
        let mut names: BTreeSet<String> = self.hierarchy.names()?.fences.into_iter().collect();
        names.extend(self.descriptions.names()?.fences);
        let found = names.into_iter().filter_map(|name| {
            let place = self.place(&name);
            match self.look_at(name) {
                Ok(listed) if listed.condition == Condition::Running => Some(Ok(listed)),
                // Without a supervisor and processes it is dead, or not complete yet.
                Ok(listed) => place.is_in_use().unwrap_or(true).then_some(Ok(listed)),
                Err(_) if !place.exists() => None,
                Err(error) => Some(Err(error)),
            }
        });
        found.collect()
    }

    /// Describes one fence.
    ///
    /// # Errors
    /// If it cannot be read, or does not exist.
    pub fn look_at(&self, name: String) -> Result<Listed> {
        let condition = self.condition_of(&name)?;
        let abi = self.version_of(&name).ok().flatten();
        if condition == Condition::Incompatible {
            return Ok(Listed {
                abi,
                pids: self.place(&name).pids()?,
                name,
                condition,
                description: None,
                policy: None,
                counted: None,
                is_starting: false,
                unfenced: Vec::new(),
            });
        }
        let description = self.descriptions.read(&name);
        let pins = self.pins(&name);
        let devices = description.iter().flat_map(|found| &found.devices);
        let mut unfenced: Vec<_> = devices
            .filter_map(|device| {
                let why = device.why_unfenced(&pins);
                let why = why.or_else(|| device.why_half_fenced(&self.pins));
                Some((device.name.clone(), why?))
            })
            .collect();
        // The programs of the cgroup are attached after those of the devices.
        let has_links = Hook::ALL.iter().any(|hook| pins.join(hook.name()).exists());
        let is_starting = condition == Condition::Running && !has_links && !unfenced.is_empty();
        if is_starting {
            unfenced.clear();
        }
        let stored = self.policy_file(&name).read().ok().flatten();
        Ok(Listed {
            abi,
            policy: stored.map(|stored| stored.policy),
            counted: self.counted(&name).ok(),
            is_starting,
            unfenced,
            condition,
            pids: self.place(&name).pids()?,
            description,
            name,
        })
    }

    /// The counters of the fence `name`.
    ///
    /// # Errors
    /// If its maps do not exist, or belong to another version.
    pub fn counted(&self, name: &str) -> Result<Snapshot> {
        Snapshot::of(&self.pins, name)
    }

    /// The condition of the fence `name`.
    ///
    /// # Errors
    /// If there is none, only the remains of a dead one, or if it is of [another
    /// version](crate::fence::version::OtherVersion).
    pub fn condition(&self, name: &str) -> Result<Condition> {
        self.check_version(name)?;
        let place = self.place(name);
        let condition = if place.exists() {
            Some(self.condition_of(name)?)
        } else {
            None
        };
        match condition {
            Some(Condition::Running) => Ok(Condition::Running),
            Some(other) if place.is_in_use()? => Ok(other),
            _ => Err(self.why_not_here(name)),
        }
    }

    /// Whether there is a fence `name`, of any version and in any part of the hierarchy. Remains of a dead one are none.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        let place = self.place(name);
        match place.exists() {
            true => place.is_in_use().unwrap_or(true) || self.is_supervised(name).unwrap_or(false),
            false => self.whereabouts(name, None) == Whereabouts::Elsewhere,
        }
    }

    /// Whether there is a fence `name`, as far as it can be known without root: others cannot read the registry, but see
    /// the cgroups.
    #[must_use]
    pub fn exists_to_anybody(name: &str, paths: &Paths) -> bool {
        match Self::look(paths) {
            Ok(fences) => fences.exists(name),
            Err(_) => Hierarchy::find(&paths.mountinfo).is_ok_and(|hierarchy| {
                let place = hierarchy.place(name);
                place.exists() && place.is_in_use().unwrap_or(true)
            }),
        }
    }

    /// The condition of the fence `name`, which must be in force.
    ///
    /// # Errors
    /// As for [`Fences::condition`], and if its processes are not fenced.
    pub fn enforced(&self, name: &str) -> Result<Condition> {
        let condition = self.condition(name)?;
        ensure!(
            condition != Condition::Unfenced,
            "the fence {name} is not whole: its programs are gone, and its processes are NOT FENCED"
        );
        Ok(condition)
    }

    /// Whether the supervisor of a fence was killed, and its programs are whole. Devices need their supervisor's objects.
    pub(super) fn is_orphan_without_devices(&self, name: &str) -> Result<bool> {
        let has_devices = self
            .descriptions
            .read(name)
            .is_none_or(|found| !found.devices.is_empty());
        Ok(!has_devices && self.condition_of(name)? == Condition::Orphaned)
    }

    /// Whether a fence ends with its devices, and they are gone.
    pub(super) fn has_ended_with_devices(&self, name: &str) -> bool {
        let devices = self.descriptions.read(name).map(|found| found.devices);
        devices.is_some_and(|devices| {
            !devices.is_empty() && devices.iter().all(FencedDevice::has_ended_fence)
        })
    }

    fn condition_of(&self, name: &str) -> Result<Condition> {
        let is_linked = |hook: &Hook| self.pins(name).join(hook.name()).exists();
        let description = self.descriptions.read(name);
        let has = |hook: &Hook| match &description {
            Some(description) => description.has(hook.row()),
            None => !hook.row().is_optional,
        };
        let attached = description
            .as_ref()
            .and_then(|found| found.attached.as_ref());
        let is_detached = attached.is_some_and(|attached| attached.is_detached);
        let mut hooks = Hook::ALL.into_iter().chain(Hook::LSM);
        let is_here = self.place(name).exists();
        Ok(
            if !is_here && self.whereabouts(name, None) != Whereabouts::Gone {
                Condition::Elsewhere
            } else if self.is_of_another_version(name) {
                Condition::Incompatible
            } else if self.is_supervised(name)? {
                Condition::Running
            } else if hooks.all(|hook| is_linked(&hook) || !has(&hook)) {
                match is_detached {
                    true => Condition::Detached,
                    false => Condition::Orphaned,
                }
            } else {
                Condition::Unfenced
            },
        )
    }
}
