//! Whether the fence ends with its supervisor: by an option, or because a unit of systemd starts `exec`. systemd calls a unit
//! stopped when the processes of its cgroup have ended, among which those of the fence are not.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::fs::getxattr;

use super::words::step;
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Exec, YesNo},
    fence::{hierarchy::Hierarchy, nested::own_cgroup},
    supervise::dead_man::{DeadMan, ensure_outside},
};

/// The variable in which systemd passes the id of the current run of a unit (systemd.exec(5)).
const ID: &str = "INVOCATION_ID";

/// The attribute of a unit's cgroup that has the id, too (`unit_export_invocation_id` in systemd's src/core/unit.c).
const ID_ATTRIBUTE: &str = "trusted.invocation_id";

/// Starts the process that ends the fence with this process, if that is wanted.
///
/// # Errors
/// If an option asks for it, and it cannot be started, or would end together with this process.
pub(super) async fn dead_man(
    options: &Exec,
    paths: &Paths,
    fence: &str,
) -> Result<Option<DeadMan>> {
    let is_asked = match options.die_with_supervisor {
        Some(YesNo::No) => return Ok(None),
        Some(YesNo::Yes) => true,
        None => false,
    };
    let unit = unit(paths);
    if !is_asked && unit.is_none() {
        return Ok(None);
    }
    let started = DeadMan::start(fence).await;
    let started = started.context("--die-with-supervisor: cannot start the process for it")?;
    if let Err(error) = ensure_outside(&started) {
        if is_asked {
            return Err(error.context("--die-with-supervisor"));
        }
        notify(format_args!(
            "warning: {error:#}: processes in the fence may then outlive the unit"
        ));
    }
    let why = match unit {
        Some(unit) if !is_asked => format!("this process is in the unit {unit}"),
        _ => "--die-with-supervisor".into(),
    };
    step(
        options,
        format_args!("everything in the fence ends with this process: {why}"),
    );
    Ok(Some(started.dead_man))
}

/// The unit that this process is in, if systemd has started it or its parents for that unit.
fn unit(paths: &Paths) -> Option<String> {
    let id = env::var(ID).ok()?;
    let table = fs::read_to_string(paths.proc.join("self/cgroup")).ok()?;
    let hierarchy = Hierarchy::find(&paths.mountinfo).ok()?;
    let own = own_cgroup(&table)?.to_owned();
    // Other mounts than of the whole hierarchy show other paths.
    let own = Path::new(&own)
        .strip_prefix(hierarchy.root())
        .ok()?
        .to_owned();
    unit_of(&own, &id, |cgroup| {
        attribute(&hierarchy.mount().join(cgroup))
    })
}

/// The unit of a cgroup: the nearest one that is named like a unit, if the id is that of its run. A terminal's shell inherits
/// the variable from the terminal, which is another unit. Without the attribute only services count.
fn unit_of(cgroup: &Path, id: &str, attribute: impl Fn(&Path) -> Option<String>) -> Option<String> {
    let ancestors = cgroup.ancestors().map(Path::to_owned);
    let mut units = ancestors.filter_map(|path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let is_unit = name.ends_with(".service") || name.ends_with(".scope");
        is_unit.then_some((path, name))
    });
    let (path, name) = units.next()?;
    let is_it = match attribute(&path) {
        Some(attribute) => attribute == id,
        None => name.ends_with(".service"),
    };
    is_it.then_some(name)
}

fn attribute(cgroup: &Path) -> Option<String> {
    let mut value = [0; 64];
    let length = getxattr(cgroup, ID_ATTRIBUTE, &mut value[..]).ok()?;
    String::from_utf8(value.get(..length)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_unit_counts_if_the_id_is_of_its_run() {
        let terminal = "user.slice/user@1.service/app.slice/terminal.scope";
        for (cgroup, attribute, expected) in [
            ("system.slice/vm.service", Some("7"), Some("vm.service")),
            (
                "system.slice/vm.service/below",
                Some("7"),
                Some("vm.service"),
            ),
            ("system.slice/vm.service", Some("8"), None),
            ("system.slice/vm.service", None, Some("vm.service")),
            ("run-1.scope", Some("7"), Some("run-1.scope")),
            (terminal, Some("8"), None),
            (terminal, None, None),
            ("system.slice", Some("7"), None),
            ("", Some("7"), None),
        ] {
            let read = |_: &Path| attribute.map(str::to_owned);
            let found = unit_of(Path::new(cgroup), "7", read);
            assert_eq!(found.as_deref(), expected, "{cgroup} {attribute:?}");
        }
    }
}
