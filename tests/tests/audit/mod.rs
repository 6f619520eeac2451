//! The record of attempts: bounded whatever is tried, exact whatever happens, and there for whoever asks.

mod continued;
mod flood;
mod follow;
mod processes;

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{fence::qfence, probe::Flood, workspace};

/// A file of destinations that are all the host, so many.
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

/// How many attempts were made, of which all were refused.
fn refused(floods: &[Flood]) -> u64 {
    for flood in floods {
        assert_eq!(flood.ended("ECONNREFUSED"), flood.count, "{flood:?}");
    }
    floods.iter().map(|flood| flood.count).sum()
}

fn lines(text: &str) -> Result<Vec<Value>> {
    let parsed = text.lines().map(serde_json::from_str);
    Ok(parsed.collect::<Result<_, _>>()?)
}

fn count(line: &Value) -> Result<u64> {
    line["count"].as_u64().context("a line has a count")
}

/// The record as `logs` shows it, and what it says of it.
fn logs(name: &str) -> Result<(Vec<Value>, String)> {
    let output = Command::new(qfence()?)
        .args(["logs", name, "--json"])
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    assert!(output.status.success(), "{stderr}");
    Ok((lines(&String::from_utf8(output.stdout)?)?, stderr))
}
