//! Floods of attempts: the record, the memory and the time of the supervisor are bounded, and each attempt is counted.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    memory::Memory,
    probe::{self, Flood},
    shell::Shell,
    world::World,
};

use super::{count, destinations, lines, refused};

/// What a second of the log may have at most.
const LINES: u64 = 200;
/// What ten seconds of the log may have at most.
const BYTES: u64 = 1_000_000;
/// The memory that the supervisor may allocate, in kB: its program, whose size is the profile's, is not counted.
const ALLOCATED: u64 = 12_000;

/// How long a process has run, of its own and in the kernel.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("an odd stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // USER_HZ, on every architecture that this runs on.
    Ok(ticks / 100.0)
}

#[test]
fn a_million_attempts_a_second_are_a_few_lines_and_none_is_forgotten() -> Result<()> {
    const FOR_MS: u64 = 10_000;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    let fence = Fence::new("million")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let supervisor = shell.started();
    let flood = format!(
        "{} --for-ms {FOR_MS} --connect-each {file}",
        probe::program()?.display()
    );
    let (cpu, start) = (cpu_seconds(supervisor)?, Instant::now());
    shell.tell(&format!("{flood} & {flood} & wait; echo done"))?;
    let mut allocated = 0;
    let mut floods: Vec<Flood> = Vec::new();
    loop {
        let line = shell.next_line()?;
        allocated = allocated.max(Memory::of(supervisor)?.anonymous);
        if line == "done" {
            break;
        }
        floods.push(serde_json::from_str(&line)?);
    }
    let (cpu, elapsed) = (
        cpu_seconds(supervisor)? - cpu,
        start.elapsed().as_secs_f64(),
    );
    let all = refused(&floods);
    assert_eq!(floods.len(), 2000);
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());

    let text = fs::read_to_string(fence.log())?;
    let lines = lines(&text)?;
    let told = lines.iter().map(count).sum::<Result<u64>>()?;
    assert_eq!(told, all);
    assert_eq!(lines.last().context("a line")?["total"], all);
    let folded = lines.iter().filter(|line| line["kind"] == "folded").count();
    assert!(folded > 0, "that many do not fit, and it is said");
    assert!(
        lines.iter().all(|line| line["kind"] != "lost"),
        "there is room for 2,000 kinds"
    );
    let mut seconds: BTreeMap<&str, u64> = BTreeMap::new();
    for line in &lines {
        let time = line["time"].as_str().context("a time")?;
        *seconds
            .entry(time.get(..19).context("a second")?)
            .or_default() += 1;
    }
    assert!(seconds.values().all(|lines| *lines <= LINES), "{seconds:?}");
    assert!(text.len() as u64 <= BYTES, "{} bytes", text.len());
    assert!(allocated <= ALLOCATED, "{allocated} kB");
    assert!(cpu <= elapsed / 2.0, "{cpu} s of {elapsed} s");
    Ok(())
}

#[test]
fn a_flood_that_lasts_is_summed_up_by_the_minute_and_none_is_forgotten() -> Result<()> {
    const FOR_MS: u64 = 45_000;
    /// The lines of the first seconds, of less than a minute after them, and of the end.
    const ALL_LINES: usize = 20 * 95 + 2 * 95 + 95;
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 1000)?;
    let fence = Fence::new("lasting")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let flood = format!(
        "{} --for-ms {FOR_MS} --connect-each {file}",
        probe::program()?.display()
    );
    let floods: Vec<Flood> = probe::read_lines(&shell.ask(&flood)?.join("\n"))?;
    let before_end = lines(&fs::read_to_string(fence.log())?)?.len();
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    let lines = lines(&fs::read_to_string(fence.log())?)?;
    let all = refused(&floods);
    assert_eq!(lines.iter().map(count).sum::<Result<u64>>()?, all);
    assert_eq!(lines.last().context("a line")?["total"], all);
    assert!(lines.iter().all(|line| line["kind"] != "lost"));
    // The control: a flood of the first seconds is written by the second.
    assert!(lines.len() > 10 * 50, "{}", lines.len());
    assert!(lines.len() <= ALL_LINES, "{}", lines.len());
    // What waited for the end of the minute is not lost at the end of the fence.
    assert!(lines.len() > before_end, "{before_end}");
    Ok(())
}

#[test]
fn more_kinds_than_there_is_room_for_are_counted() -> Result<()> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    let file = destinations(dir.path(), 20_000)?;
    let fence = Fence::new("kinds")?.with(&["--user", "nobody"]);
    let output = fence
        .command(&world.host, probe::program()?)
        .args(["--connect-each", &file])
        .output()?;
    let all = refused(&probe::read_lines(&String::from_utf8(output.stdout)?)?);
    assert_eq!(all, 20_000);
    let lines = lines(&fs::read_to_string(fence.log())?)?;
    assert_eq!(lines.iter().map(count).sum::<Result<u64>>()?, all);
    let stderr = String::from_utf8(output.stderr)?;
    let lost = lines
        .iter()
        .filter(|line| line["kind"] == "lost")
        .map(count);
    let lost = lost.sum::<Result<u64>>()?;
    assert!(lost > 0, "{stderr}");
    assert!(
        stderr.contains(&format!("{lost} of {all} refusals are not in the log")),
        "{stderr}"
    );
    Ok(())
}
