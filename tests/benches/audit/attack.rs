//! How much of what is allowed is left while two processes try what is refused, as fast as they can.
//!
//! They take a share of the processors, fenced or not. So the comparison is with the same two unfenced.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use tests::{
    bench::Series,
    fence::Fence,
    probe::{self, CONNECTED, Flood},
    shell::Shell,
    workspace,
    world::{SERVER_V4, World},
};

/// How many destinations are tried.
const DESTINATIONS: u16 = 1000;
/// How long a round takes.
const ROUND_MS: u64 = 2000;

/// Nobody else.
const ALONE: &str = "alone";
/// Beside two processes that are not fenced.
pub(crate) const UNFENCED: &str = "beside an unfenced attack";
/// Beside two processes in the fence.
pub(crate) const FENCED: &str = "beside a refused attack";

/// Calls of connect() a second.
pub(crate) struct Attack {
    /// Those of a process in the fence that is let.
    pub(crate) allowed: Series,
    /// Those of the attack in the fence.
    pub(crate) refused: Series,
}

/// Measures, round by round.
pub(crate) fn measure(rounds: usize) -> Result<Attack> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let mut lines = String::new();
    for index in 0..DESTINATIONS {
        let [high, low] = index.to_be_bytes();
        writeln!(lines, "udp/127.{high}.{low}.1/{}", 1000 + index)?;
    }
    let mut probes = Vec::new();
    for (name, text) in [
        ("refused", lines),
        ("allowed", format!("udp/{SERVER_V4}/9\n")),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, text)?;
        workspace::make_readable(&file)?;
        probes.push(format!(
            "{} --for-ms {ROUND_MS} --connect-each {}",
            probe::program()?.display(),
            file.display()
        ));
    }
    let [attack, allowed] = &probes[..] else {
        anyhow::bail!("there are two files");
    };
    let fence = Fence::new("attack")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let mut outside = Shell::start(world.host.command("sh"))?;
    let together = format!("{attack} & {attack} & wait");

    let mut of_allowed = Series::new("allowed connect() in a fence", "/s");
    let mut of_refused = Series::new("refused connect() of an attack", "/s");
    for _ in 0..rounds {
        let found = read(&inside.ask(allowed)?)?;
        of_allowed.push(ALONE, speed(&found, CONNECTED)?);

        outside.tell(&format!("{together}; echo ended"))?;
        let found = read(&inside.ask(allowed)?)?;
        of_allowed.push(UNFENCED, speed(&found, CONNECTED)?);
        while outside.next_line()? != "ended" {}

        let found = read(&inside.ask(&format!("{attack} & {attack} & {allowed}; wait"))?)?;
        let (ours, theirs): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|flood| flood.attempt.contains(&SERVER_V4.to_string()));
        of_allowed.push(FENCED, speed(&ours, CONNECTED)?);
        of_refused.push("two processes", speed(&theirs, "ECONNREFUSED")?);
    }
    Ok(Attack {
        allowed: of_allowed,
        refused: of_refused,
    })
}

fn read(lines: &[String]) -> Result<Vec<Flood>> {
    probe::read_lines(&lines.join("\n"))
}

/// How many there were a second; all of them must have ended like that.
fn speed(floods: &[Flood], ending: &str) -> Result<f64> {
    let mut count = 0;
    for flood in floods {
        ensure!(flood.ended(ending) == flood.count, "{flood:?}");
        count += flood.count;
    }
    ensure!(count > 0, "nothing was tried");
    let count = u32::try_from(count).context("a round is short")?;
    let ms = u32::try_from(ROUND_MS).context("a round is short")?;
    Ok(f64::from(count) * 1000.0 / f64::from(ms))
}
