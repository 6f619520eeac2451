//! The entry of the fence in the registry, and its description.

use std::{path::Path, process};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use super::target::Found;
use crate::{
    base::{
        console::notify,
        printable::{printable, printable_words},
    },
    cli::Attach,
    fence::{
        description::{Attached, COMMAND, Description},
        devices::FencedDevice,
        registry::{Fences, Made},
    },
    workload::WorkloadKind,
};

/// The ways out that `exec` closes, and that stay open for processes that run already.
const OPEN: [&str; 2] = ["managers", "processes"];

/// The description that `ps` shows and `logs` uses.
pub(super) fn describe(
    options: &Attach,
    words: &str,
    place: Option<&Found>,
    devices: &[FencedDevice],
) -> Description {
    let workload = printable(words.as_bytes());
    Description {
        command: printable_words([workload.as_bytes()], COMMAND),
        supervisor: i32::try_from(process::id()).unwrap_or_default(),
        started: format!("{:.0}", Timestamp::now()),
        qemu: None,
        strict: Vec::new(),
        open: match place {
            Some(_) => OPEN.map(str::to_owned).to_vec(),
            None => Vec::new(),
        },
        hooks: Vec::new(),
        without: Vec::new(),
        devices: devices.to_vec(),
        wired: None,
        attached: Some(Attached {
            workload,
            // That of a fence with devices alone is made with it.
            cgroup: place.map(|found| found.path.clone()).unwrap_or_default(),
            is_detached: options.detach,
        }),
        beneath: None,
    }
}

/// Clears the leftovers of dead fences, and makes the fence: at the cgroup of the target, or without one for devices alone.
///
/// # Errors
/// If there is such a fence, or it cannot be registered.
pub(super) fn make(
    options: &Attach,
    fences: &Fences,
    place: Option<&Found>,
    description: &mut Description,
) -> Result<Made> {
    let registry = fences.lock()?;
    registry.clear(&mut |note| notify(note))?;
    registry.check_devices(&description.devices)?;
    let again = options.again.as_ref().map(|again| again.name.as_str());
    let name = again.or(options.name.as_deref());
    match place {
        Some(found) => {
            // The cgroups of containers and guests have names that nobody would type.
            let named_after = match found.workload.kind {
                WorkloadKind::Container { .. } | WorkloadKind::Domain => {
                    Path::new(&found.workload.name)
                }
                WorkloadKind::Unit | WorkloadKind::Cgroup | WorkloadKind::Process => &found.path,
            };
            registry.attach(name, named_after, &found.path, found.id, description)
        }
        None => {
            let first = options.device.first().context("no target is given")?;
            registry.attach_devices(name, Path::new(first), description)
        }
    }
}

/// Names other fences that judge some processes of the target.
pub(super) fn say_others(names: &[String]) {
    if !names.is_empty() {
        notify(format_args!(
            "some processes of the target are in the fence {} too: what either refuses is refused, and each records what it \
             refuses itself",
            names.join(", ")
        ));
    }
}
