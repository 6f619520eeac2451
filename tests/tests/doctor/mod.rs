//! `doctor` reports the state of the host, as a table and in JSON, and leaves nothing behind.

mod foreign;
mod lacking;
mod machine;

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use qfence_common::HOOKS;
use serde::Deserialize;
use tests::run::to_end;

/// The findings on every host, in addition to one for each hook's program.
const ALWAYS: [&str; 19] = [
    "root",
    "capabilities",
    "build",
    "kernel",
    "memlock",
    "seccomp",
    "cgroup2",
    "net_cls, net_prio",
    "bpffs",
    "bpf_set_retval",
    "lockdown",
    "security modules",
    "unprivileged bpf",
    "user namespaces",
    "rules by name",
    "network devices",
    "packets from guests",
    "vhost-net",
    "bridged frames",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    name: String,
    state: String,
    found: String,
    fix: Option<String>,
}

type Findings = BTreeMap<String, Finding>;

/// Runs `doctor --json` and checks what is true of every result. Returns the exit status and the findings.
fn examine(mut command: Command) -> Result<(i32, Findings)> {
    command.args(["doctor", "--json"]);
    let ended = to_end(command)?;
    let code = ended.code().context("a signal ended it")?;
    ensure!(code < 2, "{ended:?}");
    ensure!(ended.stderr.is_empty(), "{ended:?}");
    let list: Vec<Finding> = serde_json::from_str(&ended.stdout)?;
    let count = list.len();
    let findings: Findings = list.into_iter().map(|f| (f.name.clone(), f)).collect();
    ensure!(findings.len() == count, "two of a name: {findings:#?}");
    for finding in findings.values() {
        let advised = finding.fix.as_ref().is_some_and(|fix| !fix.is_empty());
        ensure!(!finding.found.is_empty(), "{finding:?}");
        match finding.state.as_str() {
            "ok" => ensure!(finding.fix.is_none(), "{finding:?}"),
            "degraded" | "missing" => ensure!(advised, "nothing to do: {finding:?}"),
            _ => anyhow::bail!("an odd state: {finding:?}"),
        }
    }
    let always = ALWAYS.map(str::to_owned).into_iter();
    for name in always.chain(HOOKS.map(|row| format!("program {}", row.name))) {
        ensure!(findings.contains_key(&name), "no {name}: {findings:#?}");
    }
    let missing = findings.values().any(|f| f.state == "missing");
    ensure!(missing == (code == 1), "status {code}: {findings:#?}");
    Ok((code, findings))
}

fn is_foreign(name: &str) -> bool {
    name.starts_with("foreign programs")
}
