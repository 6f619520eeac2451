//! A fenced command as a job of a terminal's shell.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{fence::Fence, remains, run::wait_until, shell::state_of, terminal::Terminal};

/// Types the launcher and a command.
pub fn launch(terminal: &mut Terminal, fence: &Fence, command: &str) -> Result<()> {
    terminal.type_line(&format!("{} {command}", fence.launcher().join(" ")))
}

/// The fence's supervisor, from its description.
pub fn supervisor(fence: &Fence) -> Result<u32> {
    let text = fs::read(format!("/run/qfence/{}.json", fence.name()))?;
    let description: serde_json::Value = serde_json::from_slice(&text)?;
    let pid = description["supervisor"].as_u64().context("a pid")?;
    Ok(u32::try_from(pid)?)
}

/// The processes in the fence; empty if the fence does not exist.
fn pids(fence: &Fence) -> Vec<u32> {
    remains::pids(fence.name()).unwrap_or_default()
}

/// Waits for a process with this name in the fence; returns its id.
pub fn process_named(fence: &Fence, name: &str) -> Result<u32> {
    let mut found = None;
    wait_until(&format!("{name} runs in the fence"), || {
        found = pids(fence).into_iter().find(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == name
        });
        Ok(found.is_some())
    })?;
    found.context("it was there")
}

/// Waits until a process is in this state, a letter of proc_pid_stat(5).
pub fn wait_for_state(pid: u32, state: char) -> Result<()> {
    wait_until(&format!("{pid} is in state {state}"), || {
        Ok(state_of(pid) == Some(state))
    })
    .with_context(|| format!("it is in {:?}", state_of(pid)))
}

/// Checks that the last command ended with `code`, and that nothing of the fence is left.
pub fn ensure_ended(terminal: &mut Terminal, fence: &Fence, code: i32) -> Result<()> {
    let shown = terminal.run("echo status=$?")?;
    if !shown.contains(&format!("status={code}\r\n")) {
        bail!("not {code}: {shown:?}");
    }
    remains::ensure_none(fence.name())
}

/// The stand-ins of the fence's supervisor.
pub fn stand_ins(fence: &Fence) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The process may have ended.
        let words = fs::read(Path::new("/proc").join(name).join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).skip(1);
        let is_one = words.next() == Some(b"stand-in");
        if is_one && words.any(|word| word == fence.name().as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Waits until the fence's supervisor has no stand-in.
pub fn ensure_no_stand_in(fence: &Fence) -> Result<()> {
    wait_until("no stand-in is left", || Ok(stand_ins(fence)?.is_empty()))
}
