//! `--pod-device`: the host's ends of the target's veth pairs. A guest in the target whose frames leave by a tap device in its
//! network namespace has no socket there, and a fence at the cgroup does not see it; its frames pass these devices.
//!
//! Each of them is in a fence of its own, without a supervisor, that ends with the device: a pod has one network and several
//! containers, which come and go.

use std::{fs, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, ensure};

use super::{fence_one, target};
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Attach, TargetArgs},
    commands::devices::read,
    fence::registry::{Condition, Fences},
    host::devices::{
        Device,
        pairs::{Pair, pairs},
    },
    stored_policy::netns,
    workload::Target,
};

/// Fences them, except those that are fenced.
///
/// # Errors
/// If there is none, or one cannot be fenced.
pub(super) fn fence(options: &Attach, target: &Target, paths: &Paths) -> Result<()> {
    for (device, pair) in find(target, paths)? {
        if is_fenced(&device, paths)? {
            continue;
        }
        let options = Attach {
            target: TargetArgs::default(),
            device: vec![device.name.clone()],
            mac: vec![pair.mac],
            name: None,
            detach: true,
            metrics: None,
            restart: false,
            again: None,
            pod_loopback: false,
            pod_device: false,
            ends_with_device: true,
            ..options.clone()
        };
        let fenced = fence_one(&options, None, &[], None, paths);
        fenced.with_context(|| format!("the network device {} is not fenced", device.name))?;
    }
    Ok(())
}

/// The devices of this host, with their wires.
fn find(target: &Target, paths: &Paths) -> Result<Vec<(Device, Pair)>> {
    let (workload, pid) = target::process(target, paths).context("--pod-device")?;
    let words = workload.words();
    let path = paths.proc.join(pid.to_string()).join("ns/net");
    let namespace = fs::File::open(&path);
    let namespace = namespace.with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(
        namespace.metadata()?.ino() != netns()?,
        "--pod-device: {words} has the network of this host, and no device of its own"
    );
    let wires = pairs(&namespace).with_context(|| format!("--pod-device: {words}"))?;
    ensure!(
        !wires.is_empty(),
        "--pod-device: {words} has no veth pair with an end in this host's network namespace"
    );
    let found = read()?;
    let here = |pair: Pair| {
        let device = found.with_index(pair.here);
        let device = device.with_context(|| format!("the device {} is gone", pair.here))?;
        Ok((device.clone(), pair))
    };
    wires.into_iter().map(here).collect()
}

/// Whether a device is in a fence that is in force, as that of another container of the pod.
fn is_fenced(device: &Device, paths: &Paths) -> Result<bool> {
    let here = netns()?;
    for listed in Fences::open(paths)?.list_as_found()? {
        let devices = listed.description.iter().flat_map(|found| &found.devices);
        let mut same = devices.filter(|other| (other.index, other.netns) == (device.index, here));
        if same.next().is_none() {
            continue;
        }
        ensure!(
            listed.unfenced.is_empty() && listed.condition != Condition::Unfenced,
            "the network device {} is of the fence {}, whose programs are gone: remove it with `qfence-user rm {}`",
            device.name,
            listed.name,
            listed.name
        );
        notify(format_args!(
            "the network device {} is of the fence {} already",
            device.name, listed.name
        ));
        return Ok(true);
    }
    Ok(false)
}
