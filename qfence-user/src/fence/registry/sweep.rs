//! Which fences are dead, and the end of what they left.
//!
//! A fence whose cgroup is not seen here need not be dead: in a container, a cgroup namespace or below a bind mount the
//! path of its cgroup leads nowhere, while its pins and its description may be seen. So the kernel is asked for the cgroup
//! by its id.

use std::{collections::BTreeSet, fs::File};

use anyhow::{Context as _, Result, anyhow};

use super::Fences;
use crate::{
    base::{locks::Mark, say::say},
    fence::cgroup_id,
    kernel::link_info,
};

/// Where a fence is whose cgroup is not seen here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Nowhere: nothing can run in it.
    Gone,
    /// In another part of the hierarchy.
    Elsewhere,
    /// That cannot be told, and why.
    Unknown(String),
}

impl Fences {
    /// Clears what dead fences left: those without supervisor and without processes. What cannot be
    /// cleared is reported, and keeps nothing else from being so. Returns the names of fences that are of another part
    /// of the hierarchy, or may be, and of those of another version: they are left alone.
    pub(super) fn sweep(&self) -> Result<Vec<String>> {
        for error in self.pins.clear_ended()? {
            say(format_args!("warning: {error:#}"));
        }
        let mut names = BTreeSet::new();
        for found in [
            self.hierarchy.names()?,
            self.pins.names()?,
            self.states.names()?,
        ] {
            names.extend(found.fences);
            for path in found.others {
                say(format_args!(
                    "warning: {path:?} has no name that a fence can have: it is left alone"
                ));
            }
        }
        let mut elsewhere = Vec::new();
        for name in names {
            if self.is_of_another_version(&name) {
                elsewhere.push(name);
                continue;
            }
            let cgroup = self.hierarchy.cgroup(&name);
            let id = cgroup.id()?;
            if id.is_some() && (cgroup.is_supervised()? || cgroup.is_populated()?) {
                continue;
            }
            if id.is_none() {
                match self.whereabouts(&name, None) {
                    Whereabouts::Gone => {}
                    Whereabouts::Elsewhere => {
                        elsewhere.push(name);
                        continue;
                    }
                    Whereabouts::Unknown(why) => {
                        say(format_args!(
                            "warning: the cgroup of the fence {name} is not seen here, and whether there is one cannot be \
                             told: {why}. The fence is left alone"
                        ));
                        elsewhere.push(name);
                        continue;
                    }
                }
            }
            say(format_args!("clearing what was left of the fence {name}"));
            for error in self.remove_all(&name, id) {
                say(format_args!("{error:#}"));
            }
        }
        Ok(elsewhere)
    }

    /// Removes the links, the cgroup and the description of a fence without processes; every step
    /// is tried, and what went wrong is returned. `id` is that of its cgroup, if it had one here.
    pub(crate) fn remove_all(&self, name: &str, id: Option<u64>) -> Vec<anyhow::Error> {
        let cgroup = self.hierarchy.cgroup(name);
        // Links last as long as there can be somebody to fence.
        match cgroup.is_populated() {
            Ok(false) => {}
            Ok(true) => return vec![anyhow!("the fence {name} has processes: not removed")],
            Err(error) => return vec![error.into()],
        }
        if let Err(error) = cgroup.remove() {
            // A cgroup that stays may be entered again, so its links stay too.
            return vec![error];
        }
        // Pins and a description that another's fence of this name has are not this one's.
        if self.whereabouts(name, id) != Whereabouts::Gone {
            return vec![self.why_not_here(name)];
        }
        [
            // Links that judge sockets which others have are kept: no word, as those are refused everything.
            self.pins.let_go(name),
            self.store(name).remove(),
            self.kept(name).remove(),
            self.states.remove(name),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect()
    }

    /// Where the fence is that has the pins and the description of this name. `own` is the id of a cgroup that was just
    /// removed: what belongs to that is of no other.
    pub(super) fn whereabouts(&self, name: &str, own: Option<u64>) -> Whereabouts {
        let found = self.is_elsewhere(name, own);
        match found {
            Ok(true) => Whereabouts::Elsewhere,
            Ok(false) => Whereabouts::Gone,
            Err(error) => Whereabouts::Unknown(format!("{error:#}")),
        }
    }

    fn is_elsewhere(&self, name: &str, own: Option<u64>) -> Result<bool> {
        let directory = self.pins(name);
        let links = link_info::cgroups_of(&directory)?;
        let has_links = !links.is_empty();
        let mut ids: BTreeSet<u64> = links.into_iter().flatten().collect();
        let described = self.states.cgroup_of(name);
        ids.extend(described.map_err(|error| anyhow!("cannot read its description: {error}"))?);
        if !has_links && ids.is_empty() && own.is_none() && directory.is_dir() {
            // Whoever has just made the directory has marked it.
            return Ok(Mark::is_on(&File::open(&directory)?)?);
        }
        ids.retain(|id| Some(*id) != own);
        if ids.is_empty() {
            return Ok(false);
        }
        let hierarchy = File::open(self.hierarchy.mount())?;
        for id in ids {
            let exists = cgroup_id::exists(&hierarchy, id);
            if exists.with_context(|| format!("cannot look for the cgroup {id}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Why there is no fence of this name here.
    pub(super) fn why_not_here(&self, name: &str) -> anyhow::Error {
        match self.whereabouts(name, None) {
            Whereabouts::Gone => anyhow!("there is no fence named {name:?}"),
            Whereabouts::Elsewhere => anyhow!(
                "the fence {name:?} is of another part of the cgroup tree, which is not seen here: it is left alone. Give \
                 this command where the fence was made, outside of this container or in another one"
            ),
            Whereabouts::Unknown(why) => anyhow!(
                "the cgroup of the fence {name:?} is not seen here, and whether there is one cannot be told: {why}. The fence \
                 is left alone. Give this command where the fence was made"
            ),
        }
    }
}
