//! What a guest's frames cost at a tap device: unfenced, in a fence, and with the rules of a firewall that people use.
//! `cargo xtask bench` runs it.
//!
//! `devices [--quick] [--json FILE]`

mod clocks;
mod loads;
mod neighbour;
mod rival;
mod scene;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use loads::Load;
use rival::Rival;
use scene::Setup;
use tests::bench::{self, Goal, Options, Report, Series, turns};

/// The processor time in which a refusal is answered, in nanoseconds.
const ANSWER_NS: f64 = 1000.0;

fn main() -> ExitCode {
    bench::main("devices", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
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
        let series = compare(&mut setups, load, options)
            .with_context(|| format!("measure {}", load.name()))?;
        report.add(&series);
        goals(load, &series, report);
    }
    bench::progress("programs");
    let fenced = setups.iter().find(|setup| setup.rival() == Rival::Fence);
    let fenced = fenced.context("there is a fence")?;
    for load in clocks::Frames::ALL {
        let series = clocks::measure(fenced, load, options.either(3, 15))?;
        if load.is_refused() {
            let ns = bench::median(series.samples(clocks::RUN).to_vec());
            let goal = Goal::at_most(&format!("{}, ns", series.group()), ns, ANSWER_NS);
            report.goals.push(goal);
        }
        report.add(&series);
    }
    for (series, goal) in neighbour::measure(options)? {
        report.add(&series);
        report.goals.push(goal);
    }
    Ok(())
}

/// Has all setups carry the same load, in turns.
fn compare(setups: &mut [Setup], load: Load, options: &Options) -> Result<Series> {
    let rounds = options.either(4, 32);
    let mut series = Series::new(load.name(), load.unit());
    for round in 0..rounds {
        let mut samples = vec![0.0; setups.len()];
        for at in turns(round, setups.len()) {
            samples[at] = load.sample(&mut setups[at], options.quick)?;
        }
        for (setup, sample) in setups.iter().zip(samples) {
            series.push(setup.rival().name(), sample);
        }
    }
    Ok(series)
}

/// The throughput that a fence must reach.
fn goals(load: Load, series: &Series, report: &mut Report) {
    for rival in Rival::ALL {
        let ratio = series.ratio(Rival::Fence.name(), rival.name());
        if rival == Rival::Fence || ratio.is_nan() {
            continue;
        }
        let goal = format!("{}, to {}", load.name(), rival.name());
        let limit = if rival == Rival::Unfenced { 0.95 } else { 0.99 };
        report.goals.push(Goal::at_least(&goal, ratio, limit));
    }
}
