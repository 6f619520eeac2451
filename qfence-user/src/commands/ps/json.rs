//! The list of fences as JSON.

use std::{collections::BTreeMap, path::PathBuf};

use qfence_common::Traffic;
use serde::Serialize;

use super::{Lookups, STARTING, command, place};
use crate::{
    fence::{
        description::{Attached, Description},
        registry::{Condition, Listed},
    },
    kernel::Counts,
    stored_policy::resolved_names::RESULTS,
};

/// A fence in the JSON output.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    name: &'a str,
    /// The ABI version of the qfence that made it.
    abi: Option<u32>,
    state: State,
    pids: Vec<i32>,
    command: Option<Vec<String>>,
    supervisor: Option<i32>,
    started: Option<&'a str>,
    profile: Option<&'a str>,
    monitor: Option<bool>,
    temporary: Option<bool>,
    devices: Option<Vec<&'a str>>,
    unfenced_devices: Vec<&'a str>,
    strict: Option<&'a [String]>,
    open: Option<&'a [String]>,
    /// The path of the cgroup below the mount of cgroup2, if it is not among those of all fences.
    place: Option<PathBuf>,
    /// What is in it, if others have made it.
    workload: Option<&'a str>,
    attempts: Option<Counts>,
    /// The number of look-ups by their results, if the fence has a resolver.
    lookups: Option<BTreeMap<&'static str, u64>>,
    sent: Option<Amount>,
    refused: Option<Amount>,
    received: Option<Amount>,
}

/// The state of a fence in the JSON output.
#[derive(Serialize)]
#[serde(untagged)]
enum State {
    Condition(Condition),
    Starting(&'static str),
}

/// Traffic in the JSON output.
#[derive(Serialize)]
struct Amount {
    connects: u64,
    packets: u64,
    bytes: u64,
}

impl From<Traffic> for Amount {
    fn from(traffic: Traffic) -> Self {
        Self {
            connects: traffic.connects,
            packets: traffic.packets,
            bytes: traffic.bytes,
        }
    }
}

/// The fences as rows.
pub(super) fn rows<'a>(fences: &'a [Listed], lookups: &Lookups<'_>) -> Vec<Row<'a>> {
    fences
        .iter()
        .map(|fence| Row {
            name: &fence.name,
            abi: fence.abi,
            state: match (fence.is_starting, fence.unfenced.is_empty()) {
                (true, _) => State::Starting(STARTING),
                (false, true) => State::Condition(fence.condition),
                (false, false) => State::Condition(Condition::Unfenced),
            },
            devices: fence.description.as_ref().map(|found| devices(found)),
            unfenced_devices: fence
                .unfenced
                .iter()
                .map(|(name, _)| name.as_str())
                .collect(),
            pids: fence.pids.iter().map(|pid| pid.as_raw()).collect(),
            command: fence.description.as_ref().map(command),
            supervisor: fence
                .description
                .as_ref()
                .map(|description| description.supervisor),
            started: fence
                .description
                .as_ref()
                .map(|description| description.started.as_str()),
            profile: fence.policy.as_ref().map(|policy| &*policy.profile.name),
            monitor: fence.policy.as_ref().map(|policy| policy.monitor),
            temporary: fence
                .policy
                .as_ref()
                .map(|policy| policy.next_end().is_some()),
            strict: fence
                .description
                .as_ref()
                .map(|description| &*description.strict),
            open: fence
                .description
                .as_ref()
                .map(|description| &*description.open),
            place: place(fence),
            workload: attached(fence).map(|attached| attached.workload.as_str()),
            attempts: fence.counted.map(|counted| counted.counts),
            lookups: lookups
                .get(&*fence.name)
                .map(|of| RESULTS.into_iter().zip(*of).collect()),
            sent: fence.counted.map(|counted| counted.sent.into()),
            refused: fence.counted.map(|counted| counted.refused.into()),
            received: fence.counted.map(|counted| counted.received.into()),
        })
        .collect()
}

/// The workload that a fence is attached to, if others have started that.
fn attached(fence: &Listed) -> Option<&Attached> {
    fence.description.as_ref()?.attached.as_ref()
}

/// The names of the network devices of a fence.
fn devices(description: &Description) -> Vec<&str> {
    let devices = description.devices.iter();
    devices.map(|device| device.name.as_str()).collect()
}
