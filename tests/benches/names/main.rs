//! What a look-up costs in a fence with rules by name, to one of the same nameserver without a fence.
//! `cargo xtask bench` runs it.
//!
//! `names [--quick] [--json FILE]`

mod scene;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context as _, Result};
use scene::{Place, Scene};
use tests::bench::{self, Goal, Options, Report, Series, median, turns};

/// By how much a look-up may take longer, in microseconds.
const ADDED: f64 = 500.0;

/// How many look-ups a second there are to be at least.
const A_SECOND: f64 = 5000.0;

/// In this time a fence may ask nameservers for as many new names as one client asks for in a round.
const RECOVERY: Duration = Duration::from_millis(1000);

/// Names that are looked up.
struct Names {
    title: &'static str,
    /// How the probe calls it, behind `look-up` and `look-ups`.
    load: &'static str,
    /// Whether the fence asks a nameserver for each, which it does at a rate of its own.
    are_new: bool,
}

const ALL: [Names; 3] = [
    Names {
        title: "from the cache",
        load: "",
        are_new: false,
    },
    Names {
        title: "of new names",
        load: "-new",
        are_new: true,
    },
    Names {
        title: "of a refused name",
        load: "-refused",
        are_new: false,
    },
];

fn main() -> ExitCode {
    bench::main("names", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let mut scenes = [Scene::new(Place::Outside)?, Scene::new(Place::Fence)?];
    for names in &ALL {
        let series = latency(&mut scenes, names, options)?;
        report.add(&series);
        let of = |place: Place| median(series.samples(place.name()).to_vec());
        let added = of(Place::Fence) - of(Place::Outside);
        let goal = format!("{}, added µs", series.group());
        report.goals.push(Goal::at_most(&goal, added, ADDED));
    }
    for names in &ALL {
        let series = throughput(&mut scenes, names, options)?;
        report.add(&series);
        if names.are_new {
            // At most 200 a second are asked of nameservers.
            continue;
        }
        let a_second = median(series.samples(Place::Fence.name()).to_vec());
        let goal = Goal::at_least(series.group(), a_second, A_SECOND);
        report.goals.push(goal);
    }
    let note =
        "of new names, a fence asks nameservers for 200 a second, after a pause for 400 at once";
    report.notes.push(note.to_owned());
    Ok(())
}

/// How long one client waits for an answer, in turns, in microseconds.
fn latency(scenes: &mut [Scene; 2], names: &Names, options: &Options) -> Result<Series> {
    let mut series = Series::new(format!("a look-up {}", names.title), "µs");
    bench::progress(series.group());
    let load = format!("look-up{}", names.load);
    // Of new names, no more than a fence asks nameservers for at once.
    let ms = if names.are_new { 8 } else { 20 };
    for round in 0..options.either(5, 40) {
        if names.are_new {
            thread::sleep(RECOVERY);
        }
        let sample = |scene: &mut Scene| {
            let found = scene.look_up(&load, ms)?;
            Ok(1e6 / found.a_second())
        };
        in_turns(&mut series, scenes, round, sample)?;
    }
    Ok(series)
}

/// How many look-ups a second eight clients have, in turns.
fn throughput(scenes: &mut [Scene; 2], names: &Names, options: &Options) -> Result<Series> {
    let mut series = Series::new(format!("look-ups {}, eight clients", names.title), "1/s");
    bench::progress(series.group());
    let load = format!("look-ups{}", names.load);
    for round in 0..options.either(2, 10) {
        let sample = |scene: &mut Scene| Ok(scene.look_up(&load, 1000)?.a_second());
        in_turns(&mut series, scenes, round, sample)?;
    }
    Ok(series)
}

fn in_turns(
    series: &mut Series,
    scenes: &mut [Scene; 2],
    round: usize,
    sample: impl Fn(&mut Scene) -> Result<f64>,
) -> Result<()> {
    let mut samples = [0.0; 2];
    for at in turns(round, scenes.len()) {
        let figure = sample(&mut scenes[at]);
        samples[at] = figure.with_context(|| format!("measure {}", series.group()))?;
    }
    for (scene, sample) in scenes.iter().zip(samples) {
        series.push(scene.place().name(), sample);
    }
    Ok(())
}
