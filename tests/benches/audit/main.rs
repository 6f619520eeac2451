//! What the record of attempts costs: how late a line is, and how much of what is allowed an attack takes.
//! `cargo xtask bench` runs it.
//!
//! `audit [--quick] [--json FILE]`

mod attack;
mod late;

use std::{env, process::ExitCode};

use anyhow::Result;
use attack::Attack;
use tests::bench::{self, Goal, Options, Report};

/// How late a line may be, but for one in a hundred.
const LATE_MS: f64 = 5.0;
/// What must be left of the speed of what is allowed.
const LEFT: f64 = 0.9;

fn main() -> ExitCode {
    // What is started in the fence.
    if env::args().nth(1).as_deref() == Some(late::ATTEMPTS) {
        return late::attempts();
    }
    bench::main("audit", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    bench::progress("how late lines are");
    let (lateness, p99_ms) = late::measure(options.either(100, 500))?;
    report.add(&lateness);
    report.goals.push(Goal::at_most(
        "from an attempt to its line in a log, p99 in ms",
        p99_ms,
        LATE_MS,
    ));
    bench::progress("what is left of allowed traffic");
    let Attack { allowed, refused } = attack::measure(options.either(1, 5))?;
    report.add(&allowed);
    report.add(&refused);
    report.goals.push(Goal::at_least(
        "allowed connects beside refused attempts, to beside unfenced ones",
        allowed.ratio(attack::FENCED, attack::UNFENCED),
        LEFT,
    ));
    Ok(())
}
