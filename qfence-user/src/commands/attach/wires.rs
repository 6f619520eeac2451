//! `--pod-device`: the host's ends of the target's veth pairs. A guest in the target whose frames leave by a tap device in its
//! network namespace has no socket there, and a fence at the cgroup does not see it; its frames pass these devices.
//!
//! Each of them is in a fence of its own, without a supervisor, that ends with the device: a pod has one network and several
//! containers, which come and go.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Subject, fence_one, network::nameservers, target};
use crate::{
    base::{console::notify, paths::Paths},
    cli::{Attach, TargetArgs},
    commands::devices::{fenced, read},
    fence::{
        devices::FencedDevice,
        registry::{Condition, Fences, Listed},
    },
    host::{
        devices::pairs::{Pair, pairs},
        nameservers::Nameservers,
        workload::WorkloadNetwork,
    },
    kernel::device::state::{State, state},
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

/// Fences them, except those that are fenced. Returns the network namespace that they lead to: the inode of its file in /proc.
///
/// # Errors
/// If there is none, or one cannot be fenced.
pub(super) fn fence(options: &Attach, target: &Target, paths: &Paths) -> Result<u64> {
    let (namespace, wires) = find(target, paths)?;
    for wire in wires {
        let fenced = ensure_fenced(&wire, options, paths);
        fenced.with_context(|| format!("the network device {} is not fenced", wire.device.name))?;
    }
    Ok(namespace)
}

/// How long another container of the pod may take to fence a wire.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fences a wire unless it is fenced. While another process is about to fence it, as for another container of the pod, waits
/// for that: it may fail.
fn ensure_fenced(wire: &Wire, options: &Attach, paths: &Paths) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut is_own = false;
    loop {
        let busy = match look(&wire.device, paths)? {
            Seen::Fenced(name) => {
                if !is_own {
                    notify(format_args!(
                        "the network device {} is of the fence {name} already",
                        wire.device.name
                    ));
                }
                return Ok(());
            }
            Seen::Starting(name) => name,
            Seen::Unfenced => match fence_alone(wire, options, paths) {
                Ok(()) => {
                    is_own = true;
                    continue;
                }
                // Another process may have been first.
                Err(error) => match look(&wire.device, paths)? {
                    Seen::Unfenced => return Err(error),
                    Seen::Fenced(_) => continue,
                    Seen::Starting(name) => name,
                },
            },
        };
        ensure!(
            Instant::now() < deadline,
            "the fence {busy}, which is to have it, is still being started"
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// Makes the fence of a wire.
fn fence_alone(wire: &Wire, options: &Attach, paths: &Paths) -> Result<()> {
    let options = Attach {
        target: TargetArgs::default(),
        device: vec![wire.device.name.clone()],
        name: None,
        detach: true,
        // Those are the target's.
        log: Vec::new(),
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
        wired: None,
        wire: Some(wire),
    };
    fence_one(&options, subject, None, paths).map(|_| ())
}

/// Finds the network namespace of a target, and its wires.
fn find(target: &Target, paths: &Paths) -> Result<(u64, Vec<Wire>)> {
    let (workload, pid) = target::process(target, paths).context("--pod-device")?;
    let words = workload.words();
    let path = paths.proc.join(pid.to_string()).join("ns/net");
    let namespace = fs::File::open(&path);
    let namespace = namespace.with_context(|| format!("cannot open {}", path.display()))?;
    let here = netns()?;
    let inode = namespace.metadata()?.ino();
    ensure!(
        inode != here,
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
    let wires: Result<_> = wires.into_iter().map(wire).collect();
    Ok((inode, wires?))
}

/// Whether a wire is fenced.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It is in no fence.
    Unfenced,
    /// It is in this fence, which is still being started.
    Starting(String),
    /// It is in this fence, which is in force.
    Fenced(String),
}

/// Looks for the fence of a device.
///
/// # Errors
/// If that is not in force, or cannot be understood.
fn look(device: &FencedDevice, paths: &Paths) -> Result<Seen> {
    let fences = Fences::open(paths)?;
    seen(device, &fences.list_as_found()?, |name| {
        let states = state(None, &fences.pins(name), device.index);
        !states.is_ok_and(|states| states.frame == State::Unpinned)
    })
}

/// Looks for the fence of a device among others. `has_pins` is whether one whose description cannot be read has programs for
/// it.
fn seen(device: &FencedDevice, listed: &[Listed], has_pins: impl Fn(&str) -> bool) -> Result<Seen> {
    for listed in listed {
        let name = &listed.name;
        let Some(description) = &listed.description else {
            ensure!(
                !has_pins(name),
                "it is of the fence {name}, which this version of qfence cannot look at: remove it by the qfence that made it"
            );
            continue;
        };
        let mut devices = description.devices.iter();
        if !devices.any(|other| (other.index, other.netns) == (device.index, device.netns)) {
            continue;
        }
        let attached = description.attached.as_ref();
        // One that is left to itself has a supervisor until it is complete, and is removed if it cannot be completed.
        let is_incomplete = listed.condition == Condition::Running
            && attached.is_some_and(|attached| attached.is_detached);
        if listed.is_starting || is_incomplete {
            return Ok(Seen::Starting(name.clone()));
        }
        ensure!(
            listed.unfenced.is_empty() && listed.condition != Condition::Unfenced,
            "it is of the fence {name}, whose programs are gone: remove it with `qfence-user rm {name}`"
        );
        return Ok(Seen::Fenced(name.clone()));
    }
    Ok(Seen::Unfenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32) -> FencedDevice {
        let text = format!(
            r#"{{"name":"pod0","index":{index},"netns":4,"macs":[],"learns_mac":false,"is_of_pod":true}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    /// The fence of a wire with the index 7.
    fn fence(condition: Condition, is_starting: bool, is_detached: bool) -> Listed {
        let description = serde_json::json!({
            "command": [], "supervisor": 1, "started": "", "devices": [device(7)],
            "attached": { "workload": "device pod0", "cgroup": "a", "is_detached": is_detached },
        });
        Listed {
            name: "f".into(),
            abi: None,
            condition,
            pids: Vec::new(),
            description: Some(serde_json::from_value(description).unwrap()),
            policy: None,
            counted: None,
            is_starting,
            unfenced: Vec::new(),
        }
    }

    #[test]
    fn a_fence_counts_when_it_is_complete() {
        let seen = |listed: Listed| seen(&device(7), &[listed], |_| false);
        let starting = Seen::Starting("f".into());
        let fenced = Seen::Fenced("f".into());
        assert_eq!(
            seen(fence(Condition::Running, true, false)).unwrap(),
            starting
        );
        assert_eq!(
            seen(fence(Condition::Running, false, true)).unwrap(),
            starting
        );
        for (condition, is_detached) in [
            (Condition::Running, false),
            (Condition::Detached, true),
            (Condition::Orphaned, false),
        ] {
            assert_eq!(seen(fence(condition, false, is_detached)).unwrap(), fenced);
        }
        assert!(seen(fence(Condition::Unfenced, false, true)).is_err());
        let mut damaged = fence(Condition::Detached, false, true);
        damaged.unfenced.push(("pod0".into(), "detached".into()));
        assert!(seen(damaged).is_err());
    }

    #[test]
    fn the_device_of_a_fence_that_cannot_be_read_is_not_taken() {
        let mut other = fence(Condition::Incompatible, false, false);
        other.description = None;
        assert!(seen(&device(7), std::slice::from_ref(&other), |_| true).is_err());
        let none = seen(&device(7), &[other], |_| false);
        assert_eq!(none.unwrap(), Seen::Unfenced);
        let complete = fence(Condition::Detached, false, true);
        assert_eq!(
            seen(&device(8), &[complete], |_| false).unwrap(),
            Seen::Unfenced
        );
    }
}
