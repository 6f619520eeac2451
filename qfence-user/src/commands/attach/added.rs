//! The network interfaces that libvirt adds to a guest while it runs. libvirt calls no hook for most of them: it opens the
//! device, and hands it to QEMU. A program of the security module BPF refuses it there.

use anyhow::Result;
use qfence_common::Hook;

use crate::{
    base::{console::notify, paths::Paths, system_log},
    cli::Attach,
    doctor::closures::security_module,
    fence::{description::Description, hierarchy::Hierarchy},
    workload::{Target, added::HOTPLUG},
};

/// Whether the fence refuses devices for networks that are handed to the target. The description gets the hook, or what is
/// open.
///
/// # Errors
/// If there is no cgroup2 hierarchy.
pub(super) fn refuses(
    options: &Attach,
    target: Option<&Target>,
    description: &mut Description,
    paths: &Paths,
) -> Result<bool> {
    let is_guest = matches!(
        target,
        Some(Target::Domain(_) | Target::StartingDomain { .. })
    );
    if !is_guest || options.allow_unfenced_net {
        return Ok(false);
    }
    let Err(why) = security_module(&Hierarchy::find(&paths.mountinfo)?, &paths.run) else {
        description.hooks.push(Hook::FileReceive.name().to_owned());
        return Ok(true);
    };
    description.open.push(HOTPLUG.to_owned());
    let message = format!(
        "warning: network interfaces that are added to the guest while it runs (virsh attach-device) will NOT be FENCED: programs \
         of the security module BPF, which would refuse them, cannot be used ({why}); they need Linux 6.0 (on aarch64 6.4) with \
         bpf in lsm="
    );
    if matches!(target, Some(Target::StartingDomain { .. })) {
        // libvirt keeps what hooks say that do not fail to itself.
        let _ = system_log::write(&message);
    }
    notify(message);
    Ok(false)
}
