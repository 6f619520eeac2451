//! The list of fences as a table.

use std::os::unix::ffi::OsStrExt as _;

use comfy_table::{Table, presets::NOTHING};
use nix::unistd::Pid;

use super::{Lookups, STARTING, command, place};
use crate::{
    base::printable::printable,
    confinement,
    fence::registry::{Condition, Listed},
    kernel::snapshot::{Snapshot, bytes},
    policy::Policy,
    stored_policy::resolved_names::{RESULTS, refused},
};

/// The maximum number of processes of a fence in the table.
const PIDS: usize = 16;

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

/// The fences as a table.
pub(super) fn table(fences: &[Listed], lookups: &Lookups<'_>) -> String {
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
