//! Finds a fence whose place is not visible here.
//!
//! Such a fence need not be dead. In a container, in a cgroup namespace, or below a bind mount, the path of its
//! cgroup does not exist, although its pins and description may be visible. So the kernel is asked for the cgroup by
//! its id.

use std::{collections::BTreeSet, fs::File};

use anyhow::{Context as _, Result, anyhow};

use super::Fences;
use crate::{
    base::{cgroup_id, locks::Mark},
    kernel::link_info,
};

/// Where a fence is whose cgroup is not visible here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It has no cgroup, so no process can be in it.
    Gone,
    /// In another part of the hierarchy.
    Elsewhere,
    /// Unknown, with the reason.
    Unknown(String),
}

impl Fences {
    /// Where the fence is that has the pins and the description of this name. `own` is the id of a cgroup that was
    /// just removed: it does not count.
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
        let described = self.descriptions.look(name);
        let described =
            described.map_err(|error| anyhow!("cannot read its description: {error}"))?;
        ids.extend(described.and_then(|seen| seen.ids.cgroup));
        if !has_links && ids.is_empty() && own.is_none() && directory.is_dir() {
            // The process that has just made the directory has marked it.
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

    /// The error for a fence that is not here.
    pub(super) fn why_not_here(&self, name: &str) -> anyhow::Error {
        match self.whereabouts(name, None) {
            Whereabouts::Gone => anyhow!("there is no fence named {name:?}"),
            Whereabouts::Elsewhere => anyhow!(
                "the fence {name:?} is of another part of the cgroup tree, which is not visible here: it is left alone. Run \
                 this command where the fence was made, outside of this container or in another one"
            ),
            Whereabouts::Unknown(why) => anyhow!(
                "the cgroup of the fence {name:?} is not visible here, and it is unknown whether it exists: {why}. The fence \
                 is left alone. Run this command where the fence was made"
            ),
        }
    }
}
