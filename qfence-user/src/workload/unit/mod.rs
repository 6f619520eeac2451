//! Units of systemd. systemd knows best which cgroup a unit has, because of `Slice=`, aliases and templates, so
//! `systemctl` is asked.

pub(super) mod ask;
mod name;

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::{NotRunning, Workload, WorkloadKind, process};
use crate::{
    base::{paths::Paths, printable::printable},
    fence::hierarchy::Hierarchy,
};

/// The properties that systemd is asked for.
const PROPERTIES: &str = "Id,LoadState,ActiveState,ControlGroup,ControlGroupId,MainPID";

/// Finds the cgroup of a unit of the system's manager.
///
/// # Errors
/// If the name is invalid, there is no such unit, or it does not run.
pub(super) fn find(name: &str, paths: &Paths, hierarchy: &Hierarchy) -> Result<Workload> {
    let name = name::whole(name)?;
    let answer = ask::systemctl(
        &paths.root,
        &["show", "--property", PROPERTIES, "--", &name],
    )
    .with_context(|| format!("cannot ask systemd for the unit {name}"))?;
    let unit = Unit::parse(&answer)
        .with_context(|| format!("cannot understand systemctl's answer for the unit {name}"))?;
    let path = unit.cgroup(&name)?;
    let cgroup = process::below(Path::new(path), hierarchy.root())
        .with_context(|| format!("the cgroup {path} of the unit {name} is not visible here"))?;
    let directory = hierarchy.mount().join(&cgroup);
    let metadata = directory.metadata().with_context(|| {
        format!(
            "the unit {name} has no cgroup of v2: cannot look at {}",
            directory.display()
        )
    })?;
    // systemd 251 and earlier do not tell the id.
    ensure!(
        unit.cgroup_id == 0 || unit.cgroup_id == metadata.ino(),
        "the cgroup {} is not the one of the unit {name}: run qfence in the mount and cgroup namespaces of systemd",
        directory.display()
    );
    Ok(Workload {
        kind: WorkloadKind::Unit,
        name: unit.id.to_owned(),
        cgroup,
        pid: (unit.main_pid > 0).then(|| Pid::from_raw(unit.main_pid)),
    })
}

/// What systemd tells of a unit.
#[derive(Debug, PartialEq, Eq)]
struct Unit<'a> {
    /// Its name, which is another than the asked one for an alias.
    id: &'a str,
    load_state: &'a str,
    active_state: &'a str,
    /// Empty if it has none.
    cgroup: &'a str,
    /// 0 if it is not known.
    cgroup_id: u64,
    /// 0 if there is none.
    main_pid: i32,
}

impl<'a> Unit<'a> {
    /// Parses lines `KEY=VALUE`. Sockets have no MainPID.
    fn parse(answer: &'a str) -> Result<Self> {
        let lines = answer.lines().filter_map(|line| line.split_once('='));
        let fields: BTreeMap<_, _> = lines.collect();
        let field = |key| {
            let value = fields.get(key).copied();
            value.with_context(|| format!("it has no {key}"))
        };
        let number = |key| fields.get(key).copied().unwrap_or("0");
        Ok(Self {
            id: field("Id")?,
            load_state: field("LoadState")?,
            active_state: field("ActiveState")?,
            cgroup: field("ControlGroup")?,
            cgroup_id: number("ControlGroupId").parse().context("ControlGroupId")?,
            main_pid: number("MainPID").parse().context("MainPID")?,
        })
    }

    /// Its cgroup, as an absolute path.
    fn cgroup(&self, name: &str) -> Result<&'a str> {
        if matches!(self.load_state, "not-found" | "error" | "bad-setting") {
            let state = printable(self.load_state.as_bytes());
            let why = format!(
                "systemd has no unit {name} (its state is {state}): see `systemctl list-units`"
            );
            return Err(NotRunning(why).into());
        }
        if self.cgroup.is_empty() {
            let state = printable(self.active_state.as_bytes());
            let why = format!(
                "the unit {name} is {state} and has no processes: start it, and then attach"
            );
            return Err(NotRunning(why).into());
        }
        Ok(self.cgroup)
    }
}

#[cfg(test)]
mod tests;
