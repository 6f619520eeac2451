//! `ps`: lists the fences.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt as _, path::PathBuf};

use anyhow::Result;
use comfy_table::{Table, presets::NOTHING};
use nix::unistd::Pid;
use qfence_common::Traffic;
use serde::Serialize;

use super::{named::found, print, print_json, require_root};
use crate::{
    base::{
        console::notify,
        paths::Paths,
        printable::{printable, printable_words},
        process::helper::Apart,
    },
    cli::Ps,
    confinement,
    fence::{
        description::{Attached, COMMAND, Description},
        hierarchy::PARENT,
        registry::{Condition, Fences, Listed},
    },
    kernel::{
        Counts,
        snapshot::{Snapshot, bytes},
    },
    policy::Policy,
    stored_policy::resolved_names::{RESULTS, refused},
    workload::added,
};

/// The maximum number of processes of a fence in the table.
const PIDS: usize = 16;

/// A fence in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
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

/// The state of a fence that is being started, as far as it has devices.
const STARTING: &str = "starting";

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

/// Runs `ps`.
///
/// # Errors
/// If the fences cannot be listed, or standard output cannot be written.
pub fn run(options: &Ps, paths: &Paths) -> Result<()> {
    require_root()?;
    let all = Fences::open(paths)?;
    let registry = all.lock()?;
    let elsewhere = registry.clear(&mut |note| notify(note))?;
    let mut fences = registry.list(elsewhere)?;
    drop(registry);
    let mut apart = Apart::new(&paths.proc);
    let of_pods: Vec<_> = fences
        .iter()
        .map(|fence| of_pod(fence, &fences, paths))
        .collect();
    for (fence, of_pod) in fences.iter_mut().zip(of_pods) {
        let Some(description) = &fence.description else {
            continue;
        };
        let added = added::unjudged(description, &fence.pids, &mut apart, paths);
        fence.unfenced.extend(added);
        fence.unfenced.extend(of_pod);
    }
    let lookups = lookups(&all, &fences);
    if options.json {
        print_json(&rows(&fences, &lookups))?;
    } else {
        print(&table(&fences, &lookups))?;
    }
    for Listed {
        name, condition, ..
    } in &fences
    {
        match condition {
            Condition::Elsewhere => notify(format_args!(
                "the fence {name} is in another part of the cgroup tree, which is not visible here, and is not changed. Show \
                 or remove it where it was started"
            )),
            Condition::Incompatible => {
                if let Err(error) = all.check_version(name) {
                    notify(format_args!("{error:#}"));
                }
            }
            Condition::Running
            | Condition::Orphaned
            | Condition::Detached
            | Condition::Unfenced => {}
        }
    }
    Ok(())
}

/// The devices of a container's pod that are not fenced, if they should be.
fn of_pod(fence: &Listed, all: &[Listed], paths: &Paths) -> Vec<(String, String)> {
    let wired = fence.description.as_ref().and_then(|found| found.wired);
    let unfenced = wired.map(|wired| wired.unfenced(&fence.pids, all, &paths.proc));
    unfenced.unwrap_or_default()
}

/// The look-ups of fences with a resolver, by the name of the fence.
type Lookups<'a> = BTreeMap<&'a str, [u64; RESULTS.len()]>;

/// The look-ups of fences. Those that cannot be read are reported.
fn lookups<'a>(all: &Fences, fences: &'a [Listed]) -> Lookups<'a> {
    let mut lookups = Lookups::new();
    for Listed { name, counted, .. } in fences {
        // Of a fence whose maps cannot be read, no count is shown.
        let Some(_counted) = counted else {
            continue;
        };
        match found(all, name) {
            Ok(Some(found)) => {
                lookups.insert(name, found.lookups);
            }
            Ok(None) => {}
            Err(error) => notify(format_args!(
                "warning: the look-ups of the fence {name} are not counted: {error:#}"
            )),
        }
    }
    lookups
}

fn rows<'a>(fences: &'a [Listed], lookups: &Lookups<'_>) -> Vec<Row<'a>> {
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

/// The path of a fence's cgroup, if it is not among those of all fences, where it has the name of its fence.
fn place(fence: &Listed) -> Option<PathBuf> {
    let description = fence.description.as_ref()?;
    match (&description.attached, &description.beneath) {
        (Some(attached), _) => Some(attached.cgroup.clone()),
        (None, Some(path)) => Some(path.join(PARENT).join(&fence.name)),
        (None, None) => None,
    }
}

/// The names of the network devices of a fence.
fn devices(description: &Description) -> Vec<&str> {
    let devices = description.devices.iter();
    devices.map(|device| device.name.as_str()).collect()
}

/// The condition of a fence; if one of its network devices is not fenced, that. Fences have the version of this program, if
/// none is named.
fn state(fence: &Listed) -> String {
    match fence.unfenced.split_first() {
        None if fence.is_starting => STARTING.to_owned(),
        None if fence.condition == Condition::Incompatible => {
            let abi = fence
                .abi
                .map_or_else(|| "unknown".to_owned(), |abi| abi.to_string());
            format!("{} (ABI {abi})", fence.condition.name())
        }
        None => fence.condition.name().to_owned(),
        Some(((name, why), others)) => {
            let name = printable(name.as_bytes());
            let more = match others.len() {
                0 => String::new(),
                count => format!(", and {count} more"),
            };
            format!("UNFENCED (device {name}: {why}{more})")
        }
    }
}

/// The name of the profile, with a remark if there are additional rules, monitor mode, or rules for a while.
fn policy_name(policy: Option<&Policy>) -> String {
    let Some(policy) = policy else {
        return "-".to_owned();
    };
    let given = policy.given.len() + usize::from(policy.default.is_some());
    let more = if given == 0 { "" } else { "+" };
    let monitored = if policy.monitor { " MONITORED" } else { "" };
    let temporary = if policy.next_end().is_some() {
        " TEMPORARY"
    } else {
        ""
    };
    format!("{}{more}{monitored}{temporary}", policy.profile.name)
}

/// Names of closures in a column.
fn closures(names: Option<&[String]>) -> String {
    match names {
        None | Some([]) => "-".to_owned(),
        Some(names) if names.len() == confinement::Closure::ALL.len() => "all".to_owned(),
        // What a fenced process cannot write, an older or newer version can.
        Some(names) => printable(names.join(",").as_bytes()),
    }
}

/// A value of the counters, if they can be read.
fn counted(fence: &Listed, show: impl Fn(&Snapshot) -> String) -> String {
    fence.counted.as_ref().map_or_else(|| "-".to_owned(), show)
}

/// The attempts on record, and the look-ups that were refused.
fn denied(counted: &Snapshot, lookups: Option<&[u64; RESULTS.len()]>) -> String {
    let refused = lookups.map_or(0, refused);
    counted
        .counts
        .on_record()
        .saturating_add(refused)
        .to_string()
}

/// The command of a fence. An earlier version stored it completely.
fn command(description: &Description) -> Vec<String> {
    let words = description.command.iter().map(String::as_bytes);
    printable_words(words, COMMAND)
}

/// A text whose ids of containers are cut to the length that engines show: 64 digits of base 16 to 12.
fn abbreviated(text: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 64
            && word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let words = text.split(' ').map(|word| match is_id(word) {
        true => &word[..12],
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The first processes of a fence, and the number of the others.
fn pids(all: &[Pid]) -> String {
    let shown: Vec<String> = all.iter().take(PIDS).map(ToString::to_string).collect();
    match all.len() {
        0 => "-".to_owned(),
        count if count > PIDS => format!("{},… ({count})", shown.join(",")),
        _ => shown.join(","),
    }
}

fn table(fences: &[Listed], lookups: &Lookups<'_>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([
        "NAME", "STATE", "POLICY", "STRICT", "OPEN", "DENIED", "SENT", "RECEIVED", "STARTED",
        "PLACE", "PIDS", "COMMAND",
    ]);
    for fence in fences {
        let description = fence.description.as_ref();
        table.add_row([
            fence.name.clone(),
            state(fence),
            policy_name(fence.policy.as_ref()),
            closures(description.map(|description| &*description.strict)),
            closures(description.map(|description| &*description.open)),
            counted(fence, |counted| denied(counted, lookups.get(&*fence.name))),
            counted(fence, |counted| bytes(counted.sent.bytes)),
            counted(fence, |counted| bytes(counted.received.bytes)),
            description.map_or_else(|| "-".to_owned(), |description| description.started.clone()),
            place(fence).map_or_else(
                || "-".to_owned(),
                |path| printable(path.as_os_str().as_bytes()),
            ),
            pids(&fence.pids),
            description.map_or_else(
                || "-".to_owned(),
                |description| abbreviated(&command(description).join(" ")),
            ),
        ]);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests;
