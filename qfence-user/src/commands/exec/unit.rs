//! The unit of systemd that starts `exec`. The fence is made beneath its cgroup where that is possible, and ends with its
//! supervisor: a unit that is stopped leaves nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::getxattr;

use super::words::step;
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Exec, YesNo},
    fence::{
        beneath::{self, CgroupParent},
        hierarchy::Hierarchy,
        nested::own_cgroup,
        registry::Fences,
    },
    supervise::dead_man::{DeadMan, ensure_outside},
    workload,
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
    let unit = unit(paths).map(|unit| unit.name);
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

/// Where the cgroup of the fence is made.
#[derive(Debug, Default)]
pub(super) struct Beneath {
    /// The cgroup beneath which it is; `None` for the top.
    pub(super) cgroup: Option<PathBuf>,
    /// What does not apply there, to be said when the fence is made.
    pub(super) warning: Option<String>,
}

impl Beneath {
    fn cgroup(cgroup: PathBuf) -> Self {
        Self {
            cgroup: Some(cgroup),
            warning: None,
        }
    }
}

/// The cgroup beneath which that of the fence is made, below the mount of cgroup2; `None` for the top.
///
/// # Errors
/// If it is given, and no fence can be made there.
pub(super) fn beneath(options: &Exec, paths: &Paths, fences: &Fences) -> Result<Beneath> {
    match &options.cgroup_parent {
        CgroupParent::Top => Ok(Beneath::default()),
        CgroupParent::Path(path) => {
            let found =
                workload::cgroup_at(path, fences.hierarchy().mount()).context("--cgroup-parent")?;
            beneath::check(fences, &found)
                .with_context(|| format!("--cgroup-parent {}", path.display()))?;
            Ok(Beneath::cgroup(found))
        }
        CgroupParent::Auto => {
            let Some(unit) = unit(paths) else {
                return Ok(Beneath::default());
            };
            let why = match beneath::check(fences, &unit.cgroup) {
                // Limits are for cgroups without processes, and this process stays in its own.
                Ok(()) if options.limits.are_any() => {
                    "--memory-max, --cpu-max and --pids-max are for a cgroup without processes (cgroups(7)); set MemoryMax=, \
                     CPUQuota= and TasksMax= of the unit instead"
                        .to_owned()
                }
                Ok(()) => return Ok(Beneath::cgroup(unit.cgroup)),
                Err(why) => format!("{:#}", anyhow!(why)),
            };
            Ok(Beneath {
                cgroup: None,
                warning: Some(format!(
                    "warning: limits, IPAddressDeny= and KillMode= of the unit {} do not apply to the command, because its \
                     fence cannot be made beneath the unit's cgroup: {why}",
                    unit.name
                )),
            })
        }
    }
}

/// A unit of systemd that this process is in.
#[derive(Debug, PartialEq, Eq)]
struct Unit {
    name: String,
    /// The cgroup of this process, which is that of the unit or below it: a path below the mount of cgroup2.
    cgroup: PathBuf,
}

/// The unit that this process is in, if systemd has started it or its parents for that unit.
fn unit(paths: &Paths) -> Option<Unit> {
    let id = env::var(ID).ok()?;
    let table = fs::read_to_string(paths.proc.join("self/cgroup")).ok()?;
    let hierarchy = Hierarchy::find(&paths.mountinfo).ok()?;
    let own = own_cgroup(&table)?.to_owned();
    // Other mounts than of the whole hierarchy show other paths.
    let own = Path::new(&own)
        .strip_prefix(hierarchy.root())
        .ok()?
        .to_owned();
    let name = unit_of(&own, &id, |cgroup| {
        attribute(&hierarchy.mount().join(cgroup))
    });
    Some(Unit {
        name: name?,
        cgroup: own,
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
