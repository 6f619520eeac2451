//! As fast as it goes, from inside and from outside: nothing crashes, nothing grows, nothing is
//! counted wrong.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;
use tests::{
    fence::Fence,
    listener::Listeners,
    memory::Memory,
    probe::{self, Flood},
    remains,
    run::wait_until,
    shell::Shell,
    world::{SERVER_V4, World},
};

use crate::objects::Objects;

const PORT: u16 = 8080;

/// What the supervisor may take more at the end than after the first flood, in kB.
const GROWTH: u64 = 4096;

/// A number out of a file of lines `NAME: NUMBER …`.
fn number(path: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.with_context(|| format!("no {name} in {}", path.display()))?
        .parse()
        .context("read a number")
}

/// What the maps that a supervisor holds take in the kernel, in bytes.
fn maps_bytes(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let path = entry?.path();
        if number(&path, "map_id:").is_ok() {
            sum += number(&path, "memlock:")?;
        }
    }
    Ok(sum)
}

/// Repeats an attempt from the shell, and makes sure of how all of them ended.
fn flood(shell: &mut Shell, count: u64, attempt: &str, ending: &str) -> Result<()> {
    let program = probe::program()?;
    // The shell's patience is for commands that take a moment.
    const STEP: u64 = 100_000;
    for _ in 0..count.div_ceil(STEP) {
        let now = count.min(STEP);
        let answer = shell.ask(&format!("{} --flood {now} {attempt}", program.display()))?;
        let floods: Vec<Flood> = probe::read_lines(&answer.join("\n"))?;
        let flood = floods.first().context("a flood has a summary")?;
        ensure!(flood.endings.get(ending) == Some(&now), "{flood:?}");
    }
    Ok(())
}

#[test]
fn a_million_datagrams_and_a_hundred_thousand_connects_add_up() -> Result<()> {
    const REFUSED: [(u64, &str, &str); 3] = [
        (1_000_000, "udp/127.0.0.1/9", "ECONNREFUSED"),
        (100_000, "tcp/192.0.2.10/9", "ECONNREFUSED"),
        // This reaches the packet layer.
        (100_000, "ping/127.0.0.1", "EPERM"),
    ];
    let world = World::new()?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("log");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600))?;
    let log = pipe.display().to_string();
    let reader = thread::spawn(move || -> Result<(u64, u64)> {
        let (mut told, mut lost) = (0, 0);
        for line in BufReader::new(fs::File::open(pipe)?).lines() {
            let line: Value = serde_json::from_str(&line?)?;
            let count = line["count"].as_u64().context("a count")?;
            match line["kind"].as_str() {
                Some("lost" | "dropped") => lost += count,
                _ => told += count,
            }
        }
        Ok((told, lost))
    });
    let fence = Fence::new("heavy")?.with(&["--user", "nobody", "--log", &log]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let supervisor = shell.started();
    let objects = Objects::of_supervisor(supervisor)?;

    flood(&mut shell, 10_000, "udp/127.0.0.1/9", "ECONNREFUSED")?;
    // What is put into the slots of others is held until the kernel is done with that.
    let maps = maps_bytes(supervisor)?;
    let resident = Memory::of(supervisor)?.resident;
    for (count, attempt, ending) in REFUSED {
        flood(&mut shell, count, attempt, ending)?;
    }
    flood(
        &mut shell,
        100_000,
        &format!("udp/{SERVER_V4}/{PORT}"),
        "sent",
    )?;
    let still = shell.attempt(&[&format!("tcp/{SERVER_V4}/{PORT}")])?;
    assert!(still[0].is_reached(), "{still:?}");
    drop(server);

    let grown = Memory::of(supervisor)?.resident;
    assert!(grown <= resident + GROWTH, "{resident} kB, then {grown} kB");
    // The reader has one map more while it reads the counts of a second.
    wait_until("the maps take what they took", || {
        Ok(maps_bytes(supervisor)? == maps)
    })?;

    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    let (told, lost) = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let all = 10_000 + REFUSED.iter().map(|(count, ..)| count).sum::<u64>();
    assert_eq!((told, lost), (all, 0), "{}", shell.stderr());
    assert!(
        !shell.stderr().contains("not in the log"),
        "{}",
        shell.stderr()
    );
    remains::ensure_none(fence.name())?;
    objects.wait_until_gone()
}
