//! A guest that sends garbage: the host stays quick, nothing arrives, and every refused frame is counted once.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    probe,
    run::wait_until,
    tap::{
        Header, Link,
        scene::{self, PORT},
        wire,
    },
};

use super::{
    bed::fence,
    matrix::kind,
    row::{Fenced, Sender},
    table,
};

/// The frames a second, and for how long.
const A_SECOND: u32 = 1000;
const FOR: Duration = Duration::from_secs(4);
/// The longest time for a connection to the host from elsewhere meanwhile, in milliseconds.
const QUICK_MS: f64 = 200.0;

/// Random numbers that are the same for each run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

/// A frame of garbage: random bytes behind a right header, or a frame of the matrix with some bytes changed, shortened or
/// lengthened.
fn garbage(random: &mut Random, rows: &[super::row::Row]) -> Vec<u8> {
    let mut frame = if random.below(4) == 0 {
        let kinds = [0x0800, 0x86dd, 0x0806, 0x8100];
        let payload: Vec<u8> = (0..random.below(200)).map(|_| random.byte()).collect();
        wire::ethernet(
            scene::GUEST_MAC,
            scene::GATEWAY_MAC,
            kinds[random.below(kinds.len())],
            &payload,
        )
    } else {
        let row = &rows[random.below(rows.len())];
        let port = 30_000 + u16::try_from(random.below(30_000)).unwrap_or(0);
        let mut frames = (row.frames)(&Sender { port });
        frames.swap_remove(random.below(frames.len()))
    };
    for _ in 0..random.below(4) {
        // The addresses of Ethernet stay, so that more comes to the parser.
        let at = 12 + random.below(frame.len() - 12);
        frame[at] = random.byte();
    }
    match random.below(8) {
        0 => frame.truncate(14 + random.below(frame.len() - 13)),
        1 => frame.extend((0..random.below(60)).map(|_| 0)),
        _ => {}
    }
    frame
}

fn listed(fence: &Fence) -> Result<Value> {
    let mut command = std::process::Command::new(qfence()?);
    let text = probe::output(command.args(["ps", "--json"]))?;
    let all: Vec<Value> = serde_json::from_str(&text)?;
    let found = all.into_iter().find(|row| row["name"] == fence.name());
    found.context("the fence is not listed")
}

fn number(of: &Value, name: &str) -> Result<u64> {
    of[name].as_u64().with_context(|| format!("{name} in {of}"))
}

#[test]
fn garbage_is_counted_and_the_host_stays_quick() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    let rows = table::rows(kind);
    // What arrives by exceptions is not garbage.
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|row| matches!(row.fenced, Fenced::Refused(_)) && row.parameter.is_none())
        .collect();
    let (fence, shell) = fence(&bed.scene, "garbage", &[])?;
    let services = bed.scene.arrivals().len();
    let before = bed.evidence.arrived()?;
    let internet = bed.scene.internet.clone();
    // Where it is built, if it is not there yet.
    probe::program()?;
    let quick = thread::spawn(move || -> Result<Vec<f64>> {
        let mut times = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < FOR {
            let outcomes = probe::run(&internet, &[&format!("tcp/10.9.0.2/{PORT}")])?;
            for outcome in outcomes {
                ensure!(outcome.is_reached(), "the host is not there: {outcome:?}");
                times.push(outcome.ms);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(times)
    });
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < FOR {
        let due = begun.elapsed().as_secs_f64() * f64::from(A_SECOND);
        while f64::from(sent) < due {
            // The device refuses some by itself.
            let _ = bed.tap.send_anything(&garbage(&mut random, &rows));
            sent += 1;
        }
        bed.tap.drain()?;
        thread::sleep(Duration::from_millis(1));
    }
    let mut times = quick.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    tests::progress::note(&format!(
        "{sent} frames; {} connections to the host, the median in {median} ms",
        times.len()
    ));
    ensure!(median < QUICK_MS, "{times:?}");
    let others = times.len();
    let after = bed.scene.arrivals();
    ensure!(
        after.len() - services == others,
        "{:?}\n{}",
        after
            .iter()
            .skip(services)
            .filter(|arrival| arrival.peer.ip() != scene::SERVER_V4
                && !arrival.peer.ip().to_string().starts_with("10.9."))
            .collect::<Vec<_>>(),
        shell.stderr()
    );
    let arrived = bed.evidence.arrived()?.since(before);
    // Each refused attempt is in a line, alone or with others.
    wait_until("the record adds up", || {
        let refused = number(&listed(&fence)?["attempts"], "refused")?;
        Ok(refused > u64::from(sent) / 2 && recorded(&fence)? == refused)
    })
    .with_context(|| {
        let (lines, listed) = (recorded(&fence), listed(&fence));
        format!("lines {lines:?}, sent {sent}, {arrived}, {listed:?}")
    })?;
    Ok(())
}

/// The number of attempts in all lines of the log: of single ones, of those that were folded together, and of lost ones.
fn recorded(fence: &Fence) -> Result<u64> {
    let text = std::fs::read_to_string(fence.log())?;
    let mut sum = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        sum += line["count"].as_u64().unwrap_or(0);
    }
    Ok(sum)
}
