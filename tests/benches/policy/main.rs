//! What a policy costs: to compile, to put in force, and at each call. `cargo xtask bench` runs it.
//!
//! `policy [--quick] [--json FILE]`

#[path = "../shared/clocks.rs"]
mod clocks;
mod policies;
mod verdict;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use policies::{Case, SIZES};
use qfence_user::{
    compile::compile,
    kernel::Maps,
    policy::{
        Sets,
        hostset::{host_set, many_set},
    },
};
use tests::bench::{self, Goal, Options, Report, Series};
use verdict::Bench;

/// How many prefixes are to be in force within how many milliseconds.
const GOAL_PREFIXES: u32 = 10_000;
const GOAL_MS: f64 = 100.0;
/// How much more a verdict may cost with many prefixes than with few, and with many rules than with one.
const GOAL_RATIO: f64 = 1.5;

fn main() -> ExitCode {
    bench::main("policy", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let mut bench = Bench::new(options)?;
    bench::progress("policies being put in force");
    let mut series = [
        Series::new("compile a policy", "ms"),
        Series::new("put it in force", "ms"),
    ];
    let mut whole = Vec::new();
    for _ in 0..options.either(3, 15) {
        for prefixes in SIZES {
            let times = change(&mut bench.maps, prefixes)?;
            for (series, ms) in series.iter_mut().zip(times) {
                series.push(&format!("{prefixes} prefixes"), ms);
            }
            if prefixes == GOAL_PREFIXES {
                whole.push(times.iter().sum());
            }
        }
    }
    series.iter().for_each(|series| report.add(series));
    report.goals.push(Goal::at_most(
        &format!("{GOAL_PREFIXES} prefixes compiled and in force, in ms"),
        bench::median(whole),
        GOAL_MS,
    ));
    bench::progress("verdicts");
    let prefixes = bench.verdicts("a verdict, prefixes", &Case::PREFIXES)?;
    let rules = bench.verdicts("a verdict, rules", &Case::RULES)?;
    for series in prefixes.iter().chain(&rules) {
        report.add(series);
    }
    for (series, few, many) in prefixes
        .iter()
        .map(|series| (series, Case::Prefixes(10), Case::Prefixes(GOAL_PREFIXES)))
        .chain(
            rules
                .iter()
                .map(|series| (series, Case::Rules(1), Case::Rules(60))),
        )
    {
        let (few, many) = (few.name(), many.name());
        report.goals.push(Goal::at_most(
            &format!("{}, {many} to {few}", series.group()),
            series.ratio(&many, &few),
            GOAL_RATIO,
        ));
    }
    Ok(())
}

/// How long it takes to compile a policy of that many prefixes, and to put it in force, in ms.
fn change(maps: &mut Maps, prefixes: u32) -> Result<[f64; 2]> {
    let rules = policies::prefixes(prefixes)?.rules();
    let sets = Sets {
        host: host_set([]),
        many: many_set([]),
        ..Sets::default()
    };
    let start = Instant::now();
    let compiled = compile(&rules, &sets, false)?;
    let compiling = start.elapsed();
    maps.publish(&compiled)?;
    Ok([compiling, start.elapsed() - compiling].map(ms))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
