//! What a policy costs: to compile, to put in force, and at each call. `cargo xtask bench` runs it.
//!
//! `policy [--quick] [--json FILE]`

mod policies;
mod verdict;

use std::{
    env, fs,
    io::{Write as _, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use policies::{Case, SIZES};
use qfence_user::{
    compile::compile,
    hostset::{host_set, many_set},
    kernel::Maps,
    policy::Sets,
};
use serde::Serialize;
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

#[derive(Serialize)]
struct Goal {
    goal: String,
    is_met: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut quick = false;
    let mut json = None;
    let mut arguments = env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--quick") => quick = true,
            Some("--json") => json = arguments.next().map(PathBuf::from),
            // What cargo says to every benchmark.
            Some("--bench") => {}
            _ => anyhow::bail!("policy [--quick] [--json FILE]"),
        }
    }
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
    if let Some(path) = json {
        write(&path, &report)?;
    }
    Ok(report.goals.iter().all(|goal| goal.is_met))
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
        compiling.push(start.elapsed());
        let start = Instant::now();
        maps.publish(&compiled)?;
        publishing.push(start.elapsed());
        intervals = compiled.intervals;
    }
    Ok(Change {
        prefixes,
        intervals,
        compile_ms: median(compiling),
        publish_ms: median(publishing),
    })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
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
    writeln!(out)?;
    for of in &report.goals {
        let word = if of.is_met { "met" } else { "MISSED" };
        writeln!(out, "{word:<6}  {}", of.goal)?;
    }
    Ok(())
}

fn write(path: &Path, report: &Report) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    fs::write(path, serde_json::to_vec_pretty(report)?)
        .with_context(|| format!("write {}", path.display()))
}
