//! The log of refusals: complete to the last one, in both formats, to every target.

mod characters;
mod counted;
mod fields;
mod targets;

use std::{fs, process::Output};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::Fence,
    probe::{self, Flood},
    world::World,
};

/// Runs a flood of refused attempts in a fence; the log's lines, and what qfence said.
fn flood(attempt: &str, count: u64) -> Result<(Vec<Value>, String)> {
    let world = World::new()?;
    let fence = Fence::new("flood")?.with(&["--user", "nobody"]);
    let Output {
        status,
        stdout,
        stderr,
    } = fence
        .command(&world.host, probe::program()?)
        .args(["--flood", &count.to_string(), attempt])
        .output()?;
    let stderr = String::from_utf8(stderr)?;
    assert!(status.success(), "{stderr}");
    let floods: Vec<Flood> = probe::read_lines(&String::from_utf8(stdout)?)?;
    let flood = floods.first().context("a flood has a summary")?;
    assert_eq!(flood.endings.get("ECONNREFUSED"), Some(&count), "{flood:?}");
    let text = fs::read_to_string(fence.log())?;
    let lines = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    Ok((lines, stderr))
}
