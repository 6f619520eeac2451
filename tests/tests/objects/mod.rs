//! The programs, links and maps of a fence, and whether the kernel still has them.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::loaded_maps,
    programs::{loaded_links, loaded_programs},
};
use qfence_common::Hook;
use tests::run::wait_until;

/// The programs that every fence has: one for each hook that is not optional.
fn programs() -> usize {
    let hooks = Hook::ALL.into_iter();
    hooks.filter(|hook| !hook.row().is_optional).count()
}

/// Objects of the kernel, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    /// Loaded programs.
    pub(crate) programs: BTreeSet<u32>,
    /// Attachments of these programs.
    pub(crate) links: BTreeSet<u32>,
    /// Maps.
    pub(crate) maps: BTreeSet<u32>,
}

impl Objects {
    /// Those of a fence, as its running supervisor holds them.
    pub(crate) fn of_supervisor(pid: u32) -> Result<Self> {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the supervisor runs")? {
            // One that was closed meanwhile is none of those.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            let id = |field: &str| {
                let value = info.lines().find_map(|line| line.strip_prefix(field))?;
                value.trim().parse::<u32>().ok()
            };
            held.programs.extend(id("prog_id:"));
            held.maps.extend(id("map_id:"));
        }
        let links = loaded_links().flatten();
        held.links = links
            .filter(|link| held.programs.contains(&link.program_id()))
            .map(|link| link.id())
            .collect();
        ensure!(
            held.programs.len() >= programs()
                && held.links.len() == held.programs.len()
                && held.maps.len() >= 5,
            "not what a supervisor holds: {held:?}"
        );
        ensure!(held.left() == held, "the kernel does not list {held:?}");
        Ok(held)
    }

    /// Those of them that the kernel still has.
    #[must_use]
    pub(crate) fn left(&self) -> Self {
        // What goes while it is listed is an error of the listing, and gone.
        let programs = loaded_programs().flatten().map(|program| program.id());
        let links = loaded_links().flatten().map(|link| link.id());
        let maps = loaded_maps().flatten().map(|map| map.id());
        let both = |mine: &BTreeSet<u32>, all: BTreeSet<u32>| mine & &all;
        Self {
            programs: both(&self.programs, programs.collect()),
            links: both(&self.links, links.collect()),
            maps: both(&self.maps, maps.collect()),
        }
    }

    /// Waits until the kernel has none of them: it frees them a moment after they are let go of.
    pub(crate) fn wait_until_gone(&self) -> Result<()> {
        wait_until("the programs, links and maps are gone", || {
            Ok(self.left() == Self::default())
        })
        .with_context(|| format!("left: {:?}", self.left()))
    }
}
