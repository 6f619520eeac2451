//! What a policy costs: to compile, to put in force, and at each call. `cargo xtask bench` runs it.
//!
//! `policy [--quick] [--json FILE]`

mod policies;
mod verdict;

use std::{
    fs,
    io::{Write as _, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use policies::{Case, SIZES};
use qfence_user::{
    compile::compile,
    hostset::{host_set, many_set},
    kernel::Maps,
    policy::Sets,
};
use serde::Serialize;
use tests::bench::{self, Goal, Options};
use verdict::{Bench, Cost};

/// What compiling and putting in force may take together, at the greatest size.
const GOAL: Duration = Duration::from_millis(100);
/// How much more a verdict may cost with many prefixes than with few, and with many rules than with one.
const GOAL_RATIO: f64 = 1.5;

/// All that is measured.
#[derive(Serialize)]
struct Report {
    kernel: String,
    quick: bool,
    changes: Vec<Change>,
    verdicts: Vec<Cost>,
    ratios: Vec<Ratio>,
    goals: Vec<Goal>,
}

/// What it takes to change to a policy: the median.
#[derive(Serialize)]
struct Change {
    prefixes: u32,
    intervals: usize,
    compile_ms: f64,
    publish_ms: f64,
}

/// What a verdict costs, beside another.
#[derive(Serialize)]
struct Ratio {
    what: String,
    hook: &'static str,
    ratio: f64,
}

fn main() -> ExitCode {
    bench::ends(run())
}

fn run() -> Result<Vec<Goal>> {
    let options = Options::read()?;
    let quick = options.quick;
    let mut bench = Bench::new(quick)?;
    let changes = SIZES
        .map(|prefixes| change(&mut bench.maps, prefixes, if quick { 3 } else { 15 }))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let verdicts = bench.verdicts(&Case::ALL)?;
    let mut report = Report {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned(),
        quick,
        ratios: ratios(&verdicts),
        goals: Vec::new(),
        changes,
        verdicts,
    };
    report.goals = goals(&report);
    show(&report)?;
    options.keep(&report)?;
    Ok(report.goals)
}

fn change(maps: &mut Maps, prefixes: u32, times: usize) -> Result<Change> {
    let rules = policies::prefixes(prefixes)?.rules();
    let sets = Sets {
        host: host_set([]),
        many: many_set([]),
        ..Sets::default()
    };
    let (mut compiling, mut publishing) = (Vec::new(), Vec::new());
    let mut intervals = 0;
    for _ in 0..times {
        let start = Instant::now();
        let compiled = compile(&rules, &sets, false)?;
        compiling.push(ms(start));
        let start = Instant::now();
        maps.publish(&compiled)?;
        publishing.push(ms(start));
        intervals = compiled.intervals;
    }
    Ok(Change {
        prefixes,
        intervals,
        compile_ms: bench::median(compiling),
        publish_ms: bench::median(publishing),
    })
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn ratios(verdicts: &[Cost]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (few, many) in Case::PAIRS {
        for cost in verdicts.iter().filter(|cost| cost.case == many.name()) {
            let is_few = |of: &&Cost| of.case == few.name() && of.hook == cost.hook;
            if let Some(least) = verdicts.iter().find(is_few) {
                ratios.push(Ratio {
                    what: format!("{} to {}", many.name(), few.name()),
                    hook: cost.hook,
                    ratio: cost.ns / least.ns,
                });
            }
        }
    }
    ratios
}

fn goals(report: &Report) -> Vec<Goal> {
    let mut goals = Vec::new();
    if let Some(last) = report.changes.last() {
        goals.push(Goal {
            goal: format!(
                "{} prefixes are in force within {} ms",
                last.prefixes,
                GOAL.as_millis()
            ),
            is_met: last.compile_ms + last.publish_ms < GOAL.as_secs_f64() * 1000.0,
        });
    }
    for Ratio { what, hook, ratio } in &report.ratios {
        goals.push(Goal {
            goal: format!("a verdict at {hook}, {what}: {GOAL_RATIO} times at most"),
            is_met: *ratio <= GOAL_RATIO,
        });
    }
    goals
}

fn show(report: &Report) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "Linux {}", report.kernel)?;
    writeln!(out, "\nPREFIXES  INTERVALS  COMPILE ms  PUBLISH ms")?;
    for of in &report.changes {
        writeln!(
            out,
            "{:>8}  {:>9}  {:>10.2}  {:>10.2}",
            of.prefixes, of.intervals, of.compile_ms, of.publish_ms
        )?;
    }
    writeln!(
        out,
        "\nVERDICT                     HOOK      ns each  of calls"
    )?;
    for of in &report.verdicts {
        writeln!(
            out,
            "{:<26}  {:<8}  {:>7.1}  {:>8}",
            of.case, of.hook, of.ns, of.calls
        )?;
    }
    writeln!(out)?;
    for of in &report.ratios {
        writeln!(out, "{}, {}: {:.2} times", of.what, of.hook, of.ratio)?;
    }
    bench::show(&mut out, &report.goals)
}
