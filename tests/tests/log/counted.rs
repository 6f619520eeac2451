//! The counts of a log's lines add up to all refusals.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{fence::Fence, probe, world::World};

use super::flood;

/// How many attempts the lines tell of, and how many of those of which they do not tell what they were. The
/// lines are numbered, and sum up as they say.
fn told_and_lost(lines: &[Value]) -> Result<(u64, u64)> {
    let (mut told, mut lost) = (0, 0);
    for (number, line) in (1..).zip(lines) {
        let count = line["count"].as_u64().context("a count")?;
        match line["kind"].as_str() {
            Some("attempt") => {
                assert_eq!(count, 1, "{line}");
                told += 1;
            }
            Some("repeats" | "folded") => told += count,
            Some("lost" | "dropped") => lost += count,
            _ => anyhow::bail!("an odd line: {line}"),
        }
        assert_eq!(line["seq"], number, "{line}");
        assert_eq!(line["total"], told + lost, "{line}");
    }
    Ok((told, lost))
}

#[test]
fn ten_thousand_of_a_kind_are_two_lines_or_a_few() -> Result<()> {
    for attempt in ["udp/127.0.0.1/9", "tcp/::1/9", "udp-connected/192.0.2.10/9"] {
        let (lines, stderr) = flood(attempt, 10_000)?;
        assert_eq!(told_and_lost(&lines)?, (10_000, 0), "{attempt}");
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str()).collect();
        assert_eq!(kinds[0], Some("attempt"), "{attempt}");
        assert!(
            kinds[1..].iter().all(|kind| *kind == Some("repeats")),
            "{attempt}: {kinds:?}"
        );
        assert!((2..10).contains(&kinds.len()), "{attempt}: {kinds:?}");
        assert!(!stderr.contains("not in the log"), "{stderr}");
    }
    Ok(())
}

#[test]
fn two_processes_at_once_are_counted_to_the_last() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("two")?.with(&["--user", "nobody"]);
    let probe = probe::program()?.display().to_string();
    let script =
        format!("{probe} --flood 20000 udp/127.0.0.1/9 & {probe} --flood 20000 udp/::1/9 & wait");
    let output = fence
        .command(&world.host, "sh")
        .args(["-c", &script])
        .output()?;
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(fence.log())?;
    let lines: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(told_and_lost(&lines)?, (40_000, 0));
    Ok(())
}
