//! `--pod-device`: the host's ends of the target's veth pairs. A guest in the target whose frames leave by a tap device in its
//! network namespace has no socket there, and a fence at the cgroup does not see it; its frames pass these devices.
//!
//! Each of them is in a fence of its own, without a supervisor, that ends with the device: a pod has one network and several
//! containers, which come and go.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, sync::Arc};

use anyhow::{Context as _, Result, ensure};

use super::{Subject, fence_one, network::nameservers, target};
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Attach, TargetArgs},
    commands::devices::{fenced, read},
    fence::{
        devices::FencedDevice,
        registry::{Condition, Fences},
    },
    host::{
        devices::pairs::{Pair, pairs},
        nameservers::Nameservers,
        workload::WorkloadNetwork,
    },
    stored_policy::netns,
    workload::Target,
};

/// A wire of a pod.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// Its end here.
    pub(super) device: FencedDevice,
    /// The nameservers of the target, if they are not this host's.
    nameservers: Option<Nameservers>,
}

impl Wire {
    /// The network of the pod, as far as the fence of its wire depends on it: what its containers may ask, it may.
    pub(super) fn network(&self) -> WorkloadNetwork {
        WorkloadNetwork {
            namespaces: Arc::new(|| Ok(Vec::new())),
            nameservers: self.nameservers.clone(),
            pod_loopback: false,
        }
    }
}

/// Fences them, except those that are fenced.
///
/// # Errors
/// If there is none, or one cannot be fenced.
pub(super) fn fence(options: &Attach, target: &Target, paths: &Paths) -> Result<()> {
    for wire in find(target, paths)? {
        let device = &wire.device;
        if is_fenced(device, paths)? {
            continue;
        }
        let options = Attach {
            target: TargetArgs::default(),
            device: vec![device.name.clone()],
            name: None,
            detach: true,
            metrics: None,
            restart: false,
            again: None,
            pod_loopback: false,
            pod_device: false,
            ..options.clone()
        };
        let subject = Subject {
            target: None,
            guests: &[],
            wire: Some(&wire),
        };
        let fenced = fence_one(&options, subject, None, paths);
        fenced.with_context(|| format!("the network device {} is not fenced", device.name))?;
    }
    Ok(())
}

/// Finds the wires of a target.
fn find(target: &Target, paths: &Paths) -> Result<Vec<Wire>> {
    let (workload, pid) = target::process(target, paths).context("--pod-device")?;
    let words = workload.words();
    let path = paths.proc.join(pid.to_string()).join("ns/net");
    let namespace = fs::File::open(&path);
    let namespace = namespace.with_context(|| format!("cannot open {}", path.display()))?;
    let here = netns()?;
    ensure!(
        namespace.metadata()?.ino() != here,
        "--pod-device: {words} has the network of this host, and no device of its own"
    );
    let wires = pairs(&namespace).with_context(|| format!("--pod-device: {words}"))?;
    ensure!(
        !wires.is_empty(),
        "--pod-device: {words} has no veth pair with an end in this host's network namespace"
    );
    let nameservers = nameservers(target, &words, Some(pid), paths);
    let found = read()?;
    let wire = |pair: Pair| {
        let device = found.with_index(pair.here);
        let device = device.with_context(|| format!("the device {} is gone", pair.here))?;
        Ok(Wire {
            device: FencedDevice {
                learnt: Some(pair.mac),
                is_of_pod: true,
                ..fenced(device, here, BTreeSet::new(), false)
            },
            nameservers: nameservers.clone(),
        })
    };
    wires.into_iter().map(wire).collect()
}

/// Whether a device is in a fence that is in force, as that of another container of the pod.
fn is_fenced(device: &FencedDevice, paths: &Paths) -> Result<bool> {
    for listed in Fences::open(paths)?.list_as_found()? {
        let devices = listed.description.iter().flat_map(|found| &found.devices);
        let mut same =
            devices.filter(|other| (other.index, other.netns) == (device.index, device.netns));
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
