//! `ps`: lists the fences.

use anyhow::Result;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{print, require_root};
use crate::{
    cli::Ps,
    fences::{Condition, Fences, Listed},
    paths::Paths,
    policy::Policy,
};

/// A fence in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    state: Condition,
    pids: Vec<i32>,
    command: Option<&'a [String]>,
    supervisor: Option<i32>,
    started: Option<&'a str>,
    profile: Option<&'a str>,
    monitor: Option<bool>,
}

/// Runs `ps`.
///
/// # Errors
/// If the fences cannot be listed, or standard output cannot be written to.
pub fn run(options: &Ps, paths: &Paths) -> Result<()> {
    require_root()?;
    let fences = Fences::open(paths)?.list()?;
    let text = if options.json {
        json(&fences)?
    } else {
        table(&fences)
    };
    print(&text)
}

fn json(fences: &[Listed]) -> Result<String> {
    let rows: Vec<Row<'_>> = fences
        .iter()
        .map(|fence| Row {
            name: &fence.name,
            state: fence.condition,
            pids: fence.pids.iter().map(|pid| pid.as_raw()).collect(),
            command: fence.state.as_ref().map(|state| state.command.as_slice()),
            supervisor: fence.state.as_ref().map(|state| state.supervisor),
            started: fence.state.as_ref().map(|state| state.started.as_str()),
            profile: fence.policy.as_ref().map(|policy| &*policy.profile.name),
            monitor: fence.policy.as_ref().map(|policy| policy.monitor),
        })
        .collect();
    Ok(serde_json::to_string(&rows)?)
}

/// The profile, and that rules were given beside it, or that nothing is refused.
fn policy_name(policy: Option<&Policy>) -> String {
    let Some(policy) = policy else {
        return "-".to_owned();
    };
    let given = policy.given.len() + usize::from(policy.default.is_some());
    let more = if given == 0 { "" } else { "+" };
    let monitored = if policy.monitor { " MONITORED" } else { "" };
    format!("{}{more}{monitored}", policy.profile.name)
}

fn table(fences: &[Listed]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["NAME", "STATE", "POLICY", "STARTED", "PIDS", "COMMAND"]);
    for fence in fences {
        let state = fence.state.as_ref();
        let pids: Vec<String> = fence.pids.iter().map(ToString::to_string).collect();
        table.add_row([
            fence.name.clone(),
            fence.condition.name().to_owned(),
            policy_name(fence.policy.as_ref()),
            state.map_or_else(|| "-".to_owned(), |state| state.started.clone()),
            if pids.is_empty() {
                "-".to_owned()
            } else {
                pids.join(",")
            },
            state.map_or_else(|| "-".to_owned(), |state| state.command.join(" ")),
        ]);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
