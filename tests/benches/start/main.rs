//! What it costs to start a command in a fence, beside other ways to keep one apart, and what a fence holds of
//! memory. `cargo xtask bench` runs it.
//!
//! `start [--quick] [--json FILE]`

mod held;
mod phases;
mod rest;
mod ways;

use std::{env, process::ExitCode};

use anyhow::Result;
use tests::{
    bench::{self, Goal, Options, Report, Series},
    fence::other_build,
};
use ways::Way;

/// How much longer than a plain spawn a start in a fence may take.
const BEYOND_MS: f64 = 15.0;
/// What a supervisor may hold of memory, and the kernel for its fence.
const RESIDENT_MB: f64 = 8.0;
const KERNEL_KB: f64 = 128.0;

fn main() -> ExitCode {
    // What is started in the fence.
    if env::args().nth(1).as_deref() == Some(phases::CLOCK) {
        return phases::tell();
    }
    bench::main("start", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    bench::progress("starts");
    let starts = ways::measure(options.either(15, 100), report)?;
    report.add(&starts);
    let beyond = beyond(&starts);
    report.add(&beyond);
    report.goals.push(Goal::at_most(
        "a start in a fence beyond a plain spawn, in ms",
        bench::median(beyond.samples(Way::Fence.name()).to_vec()),
        BEYOND_MS,
    ));
    for way in Way::ALL.into_iter().filter(|way| way.is_beaten()) {
        // What could not be measured is on the report already.
        if !starts.samples(way.name()).is_empty() {
            report.goals.push(Goal::at_most(
                &format!("a start in a fence to one by {}", way.name()),
                starts.ratio(Way::Fence.name(), way.name()),
                1.0,
            ));
        }
    }
    bench::progress("the phases of a start");
    for series in phases::measure(options.either(10, 50))? {
        report.add(&series);
    }
    bench::progress("memory");
    let fences = options.either(3, 10);
    let rest = rest::measure(fences, None)?;
    report.add(&rest.supervisor);
    report.add(&rest.kernel);
    if let Some(program) = other_build()? {
        let other = rest::measure(fences, Some(program))?;
        report.add(&other.supervisor);
        report.add(&other.kernel);
    }
    report.goals.push(Goal::at_most(
        "resident memory of a supervisor at rest, in MB",
        bench::median(rest.supervisor.samples(rest::RESIDENT).to_vec()),
        RESIDENT_MB,
    ));
    report.goals.push(Goal::at_most(
        "memory of the kernel for a fence, in kB",
        bench::median(rest.kernel.samples(rest::TOTAL).to_vec()),
        KERNEL_KB,
    ));
    Ok(())
}

/// What a start in a fence takes beyond a plain spawn of the same round.
fn beyond(starts: &Series) -> Series {
    let [fence, plain] = [Way::Fence, Way::Plain].map(|way| starts.samples(way.name()));
    let mut beyond = Series::new(format!("{}, beyond a plain spawn", starts.group()), "ms");
    for (fence, plain) in fence.iter().zip(plain) {
        beyond.push(Way::Fence.name(), fence - plain);
    }
    beyond
}
