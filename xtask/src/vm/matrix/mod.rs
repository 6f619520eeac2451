//! What holds on which kernel: runs the same commands on each kernel of the machine, keeps what they say below `target/vm`,
//! and writes the tables of docs/kernels.md from it.

mod cells;
mod page;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Booted, END, Kernel, SILENCE, contents, describe, words};
use crate::{arch::Arch, report, shell, workspace};

/// The commands, in the order in which they run. What `doctor` and `verify` say is read.
const COMMANDS: [&[&str]; 5] = [
    &["smoke"],
    &["names"],
    &["device"],
    &["qfence-user", "doctor", "--json"],
    &["qfence-user", "verify", "--json"],
];

/// The commands that need more than every fence, and the findings of `doctor` about it.
const NEEDS: [(&str, &str); 3] = [
    ("names", "rules by name"),
    ("device", "network devices"),
    ("device", "packets from guests"),
];

/// How many of the last lines of a command that failed are kept.
const TAIL: usize = 12;

/// Tries all commands on a kernel, and keeps the result below `dir`. Returns whether all succeeded.
pub(super) fn try_on(kernel: Kernel, program: &Path, dir: &Path) -> Result<bool> {
    let result = match run_all(kernel, program) {
        Ok(result) => result,
        Err(error) => {
            report::note(&format!("the kernel {}: {error:#}", kernel.name()));
            json!({ "error": format!("{error:#}") })
        }
    };
    let holds = result["error"].is_null()
        && list(&result["commands"]).all(|command| is_as_it_must_be(command, &result));
    let file = kept(kernel, dir);
    fs::write(&file, result.to_string()).with_context(|| format!("writing {}", file.display()))?;
    Ok(holds)
}

/// Writes docs/kernels.md from the results of all kernels. Without one of them nothing is written.
pub(super) fn write_page(dir: &Path) -> Result<()> {
    let mut results = Vec::new();
    for kernel in Kernel::ALL {
        let Ok(text) = fs::read_to_string(kept(kernel, dir)) else {
            report::note(&format!(
                "docs/kernels.md is as it was: the kernel {} was not tried yet",
                kernel.name()
            ));
            return Ok(());
        };
        let file = kept(kernel, dir);
        let result =
            serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
        results.push((kernel.name(), result));
    }
    let file = workspace::root().join("docs/kernels.md");
    let context = || format!("the page {}", file.display());
    let before = fs::read_to_string(&file).with_context(context)?;
    let after = page::with_tables(&before, &results).with_context(context)?;
    fs::write(&file, after).with_context(context)?;
    report::note("docs/kernels.md is written");
    Ok(())
}

/// Whether a command has succeeded, or needs something that `doctor` says this kernel lacks.
fn is_as_it_must_be(command: &Value, result: &Value) -> bool {
    let lacks = |name: &str| {
        list(&result["doctor"]).any(|finding| finding["name"] == name && finding["state"] != "ok")
    };
    let needed = NEEDS.iter().filter(|(of, _)| command["command"] == **of);
    command["status"] == 0 || needed.into_iter().any(|(_, name)| lacks(name))
}

fn kept(kernel: Kernel, dir: &Path) -> PathBuf {
    dir.join(format!("result-{}.json", kernel.name()))
}

fn run_all(kernel: Kernel, program: &Path) -> Result<Value> {
    let commands = words(&COMMANDS);
    let contents = contents(Arch::X86_64, program, None, &commands);
    let booted = Booted::boot(kernel, contents)?;
    let mut result = json!({ "commit": commit()?, "commands": [] });
    for command in &commands {
        let line = describe(command);
        let is_read = line.ends_with("--json");
        report::heading(&format!("in the machine: {line}"));
        let mut said = Vec::new();
        let status = booted
            .machine
            .run_next(SILENCE, |text| {
                said.push(text.to_owned());
                if is_read {
                    Ok(())
                } else {
                    report::result(text)
                }
            })
            .with_context(|| format!("running {line} in the machine"))?;
        report::heading(&format!("{line}: exit status {status}"));
        if is_read && let Some(value) = said.iter().find_map(|text| object(text)) {
            result[command[1].to_string_lossy().as_ref()] = value;
            said.retain(|text| object(text).is_none());
        }
        let tail = said.split_off(said.len().saturating_sub(TAIL));
        let tail = if status == 0 { Vec::new() } else { tail };
        if let Some(commands) = result["commands"].as_array_mut() {
            commands.push(json!({ "command": line, "status": status, "said": tail }));
        }
    }
    booted.machine.await_end(END)?;
    Ok(result)
}

/// A line that is an object or a list of JSON.
fn object(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// The commit that is tried. A checkout with other changes than those of the page has a mark.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = shell::program("git");
        git.current_dir(workspace::root()).args(arguments);
        git
    };
    let commit = shell::output(&mut git(&["rev-parse", "--short=10", "HEAD"]))
        .context("asking git for the commit")?;
    let others = [
        "diff",
        "--quiet",
        "HEAD",
        "--",
        ".",
        ":(exclude)docs/kernels.md",
    ];
    let is_clean = shell::succeeds(&mut git(&others));
    let mark = if is_clean { "" } else { "-dirty" };
    Ok(format!("{}{mark}", commit.trim()))
}

/// The elements of a list; none if it is none.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_fail_only_for_want_of_what_doctor_names() {
        let result = json!({ "doctor": [
            { "name": "rules by name", "state": "degraded" },
            { "name": "network devices", "state": "ok" },
        ] });
        let holds = |command: &str, status: u8| {
            is_as_it_must_be(&json!({ "command": command, "status": status }), &result)
        };
        assert!(holds("names", 125) && holds("smoke", 0));
        assert!(!holds("smoke", 1) && !holds("device", 1));
        assert!(!holds("qfence-user verify --json", 1));
    }

    #[test]
    fn only_objects_and_lists_are_read() {
        assert_eq!(object("[1]"), Some(json!([1])));
        for text in ["", "1", "a warning: {}", "null"] {
            assert_eq!(object(text), None, "{text}");
        }
    }
}
