//! The record of attempts: its size has limits, its counts are exact, and anybody who may read it can.

mod continued;
mod flood;
mod follow;
mod processes;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::qfence,
    probe::{Flood, read_lines},
    shell::Shell,
    workspace,
};

/// Writes a file of `count` destinations, all of them the host's. Returns its path.
fn destinations(directory: &Path, count: u16) -> Result<String> {
    let line = |index: u16| {
        let [high, low] = index.to_be_bytes();
        format!("udp/127.{high}.{low}.1/{}\n", 1000 + index)
    };
    let file = directory.join("destinations");
    fs::write(&file, (0..count).map(line).collect::<String>())?;
    workspace::make_readable(directory)?;
    workspace::make_readable(&file)?;
    Ok(file.display().to_string())
}

/// The number of attempts of these floods. Each of them must have been refused.
fn refused(floods: &[Flood]) -> u64 {
    for flood in floods {
        assert_eq!(flood.ended("ECONNREFUSED"), flood.count, "{flood:?}");
    }
    floods.iter().map(|flood| flood.count).sum()
}

/// The summaries of floods that a shell prints before it prints `done`. Calls `each` for every line.
fn floods_of(shell: &mut Shell, mut each: impl FnMut() -> Result<()>) -> Result<Vec<Flood>> {
    let mut floods = String::new();
    loop {
        let line = shell.next_line()?;
        each()?;
        if line == "done" {
            return read_lines(&floods);
        }
        floods += &line;
        floods.push('\n');
    }
}

fn count(line: &Value) -> Result<u64> {
    line["count"].as_u64().context("a line has a count")
}

/// The lines and the messages of `logs`.
fn logs(name: &str) -> Result<(Vec<Value>, String)> {
    let output = Command::new(qfence()?)
        .args(["logs", name, "--json"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    Ok((read_lines(&String::from_utf8(output.stdout)?)?, stderr))
}
