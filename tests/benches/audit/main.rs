//! What the record of attempts costs: how late a line is, and how much of what is allowed an attack takes.
//! `cargo xtask bench` runs it.
//!
//! `audit [--quick] [--json FILE]`

mod attack;
mod late;

use std::{
    env,
    io::{Write as _, stdout},
    process::ExitCode,
};

use anyhow::Result;
use attack::Attack;
use late::Lateness;
use serde::Serialize;
use tests::bench::{self, Goal, Options};

/// How late a line may be, but for one in a hundred.
const LATE_MS: f64 = 5.0;
/// What must be left of the speed of what is allowed.
const LEFT: f64 = 0.9;

/// All that is measured.
#[derive(Serialize)]
struct Report {
    lateness: Lateness,
    attack: Attack,
    goals: Vec<Goal>,
}

fn main() -> ExitCode {
    // What is started in the fence.
    if env::args().nth(1).as_deref() == Some(late::ATTEMPTS) {
        return bench::ends(late::attempts().map(|()| Vec::new()));
    }
    bench::ends(run())
}

fn run() -> Result<Vec<Goal>> {
    let options = Options::read()?;
    let lateness = late::measure(if options.quick { 100 } else { 500 })?;
    let attack = attack::measure(if options.quick { 1 } else { 5 })?;
    let goals = vec![
        Goal::at_most(
            "from an attempt to its line in a log, p99 in ms",
            lateness.p99_ms,
            LATE_MS,
        ),
        Goal::at_least(
            "allowed connects beside refused attempts, to beside unfenced ones",
            attack.ratio,
            LEFT,
        ),
    ];
    let report = Report {
        lateness,
        attack,
        goals,
    };
    let mut out = stdout().lock();
    let Lateness {
        lines,
        p50_ms,
        p99_ms,
        most_ms,
    } = &report.lateness;
    writeln!(
        out,
        "From an attempt to its line: {p50_ms:.2} ms in the middle, p99 {p99_ms:.2}, {most_ms:.2} at most, of {lines}"
    )?;
    let Attack {
        fenced,
        unfenced,
        alone,
        refused,
        ..
    } = &report.attack;
    writeln!(
        out,
        "Allowed connects a second: {alone:.0} alone, {unfenced:.0} beside two processes that try unfenced, \
         {fenced:.0} beside two that try {refused:.0} times a second in the fence"
    )?;
    bench::show(&mut out, &report.goals)?;
    options.keep(&report)?;
    Ok(report.goals)
}
