//! `ps`: lists the fences.

use anyhow::Result;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{print, require_root};
use crate::{
    cli::Ps,
    fences::{Condition, Fences, Listed},
    paths::Paths,
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
        })
        .collect();
    Ok(serde_json::to_string(&rows)?)
}

fn table(fences: &[Listed]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["NAME", "STATE", "STARTED", "PIDS", "COMMAND"]);
    for fence in fences {
        let state = fence.state.as_ref();
        let pids: Vec<String> = fence.pids.iter().map(ToString::to_string).collect();
        table.add_row([
            fence.name.clone(),
            fence.condition.name().to_owned(),
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
