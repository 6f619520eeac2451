//! What a guest's frames cost at a tap device: unfenced, in a fence, and with the rules of a firewall that people use.
//! `cargo xtask bench` runs it.
//!
//! `devices [--quick] [--json FILE]`

mod account;
mod clocks;
mod loads;
mod neighbour;
mod rival;
mod scene;

use std::process::ExitCode;

use account::Account;
use anyhow::{Context as _, Result};
use loads::Load;
use rival::Rival;
use scene::Setup;
use tests::bench::{self, Goal, Options, Report, Series, turns};

/// The processor time in which a refusal is answered, in nanoseconds.
const ANSWER_NS: f64 = 1000.0;
/// The share of the processor time of bulk TCP that the programs of a fence may take, in per cent.
const SHARE: f64 = 5.0;

fn main() -> ExitCode {
    bench::main("devices", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    // Before all that it counts.
    let account = Account::open()?;
    let mut setups = Vec::new();
    for rival in Rival::ALL {
        match Setup::new(rival) {
            Ok(setup) => setups.push(setup),
            Err(error) if rival.is_needed() => return Err(error),
            Err(error) => report.miss("frames", rival.name(), format!("{error:#}")),
        }
    }
    for load in Load::ALL {
        bench::progress(load.name());
        let (series, times) = compare(&mut setups, load, options, &account)
            .with_context(|| format!("measure {}", load.name()))?;
        report.add(&series);
        report.add(&times);
        throughput_goals(&series, report);
        if load.is_bulk() {
            time_goals(&times, report);
        }
    }
    bench::progress("programs");
    let fenced = setups
        .iter_mut()
        .find(|setup| setup.rival() == Rival::Fence);
    let fenced = fenced.context("there is a fence")?;
    for load in Load::ALL.into_iter().filter(|load| load.is_bulk()) {
        let series = clocks::share(fenced, load, options, &account)?;
        let share = bench::median(series.samples(clocks::PROGRAMS).to_vec());
        let goal = Goal::at_most(&format!("{}, per cent", series.group()), share, SHARE);
        report.goals.push(goal);
        report.add(&series);
    }
    for load in clocks::Frames::ALL {
        let series = clocks::measure(fenced, load, options.either(3, 15))?;
        if load.is_refused() {
            let ns = bench::median(series.samples(clocks::RUN).to_vec());
            let goal = Goal::at_most(&format!("{}, ns", series.group()), ns, ANSWER_NS);
            report.goals.push(goal);
        }
        report.add(&series);
    }
    for series in neighbour::measure(options)? {
        report.add(&series);
        throughput_goals(&series, report);
    }
    Ok(())
}

/// Has all setups carry the same load, in turns: what they carry in a time, and the processor time that it takes.
fn compare(
    setups: &mut [Setup],
    load: Load,
    options: &Options,
    account: &Account,
) -> Result<(Series, Series)> {
    let mut series = Series::new(load.name(), load.unit());
    let mut times = Series::new(
        format!("processor time of {}", load.name()),
        load.unit_of_time(),
    );
    for round in 0..load.rounds(options) {
        let mut samples = vec![(0.0, 0.0); setups.len()];
        for at in turns(round, setups.len()) {
            let before = account.read()?;
            let carried = load.sample(&mut setups[at], options.quick)?;
            let time = account.read()? - before;
            samples[at] = (carried.a_second, time / carried.amount);
        }
        for (setup, (sample, time)) in setups.iter().zip(samples) {
            series.push(setup.rival().name(), sample);
            times.push(setup.rival().name(), time);
        }
    }
    Ok((series, times))
}

/// The throughput that a fence must reach, or a neighbour of its guest.
fn throughput_goals(series: &Series, report: &mut Report) {
    for (rival, goal, ratio) in ratios(series) {
        let limit = if rival == Rival::Unfenced { 0.95 } else { 0.99 };
        report.goals.push(Goal::at_least(&goal, ratio, limit));
    }
}

/// The processor time that a fence may take.
fn time_goals(series: &Series, report: &mut Report) {
    for (rival, goal, ratio) in ratios(series) {
        let limit = if rival == Rival::Unfenced { 1.05 } else { 1.01 };
        report.goals.push(Goal::at_most(&goal, ratio, limit));
    }
}

/// The ratios of the fence to its rivals that were measured, with their names and tolerances.
fn ratios(series: &Series) -> impl Iterator<Item = (Rival, String, f64)> {
    let fence = Rival::Fence.name();
    let rivals = Rival::ALL.into_iter();
    let rivals = rivals.filter(|rival| !matches!(rival, Rival::Fence | Rival::Control));
    rivals.filter_map(move |rival| {
        let ratio = series.ratio(fence, rival.name());
        let tolerance = series.ratio_tolerance(fence, rival.name());
        let goal = format!("{}, to {} (± {tolerance:.3})", series.group(), rival.name());
        (!ratio.is_nan()).then_some((rival, goal, ratio))
    })
}
