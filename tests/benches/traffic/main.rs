//! What calls and packets cost, unfenced, in a fence, and with what else keeps a user from the host.
//! `cargo xtask bench` runs it.
//!
//! `traffic [--quick] [--json FILE]`

#[path = "../shared/clocks.rs"]
mod clocks;
mod loads;
mod programs;
mod rival;
mod scene;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use loads::{Kind, Traffic};
use rival::Rival;
use scene::Scene;
use tests::{
    bench::{self, Goal, Options, Report, Series, turns},
    fence::other_build,
};

fn main() -> ExitCode {
    bench::main("traffic", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let mut scenes = Vec::new();
    let is_compared = other_build()?.is_some();
    let rivals = Rival::ALL.into_iter();
    for rival in rivals.filter(|rival| is_compared || *rival != Rival::OtherBuild) {
        match Scene::new(rival) {
            Ok(scene) => scenes.push(scene),
            Err(error) if rival.is_needed() => return Err(error),
            Err(error) => report.miss("calls and packets", rival.name(), format!("{error:#}")),
        }
    }
    for traffic in Traffic::all() {
        bench::progress(&traffic.group());
        let series = compare(&mut scenes, &traffic, options)
            .with_context(|| format!("measure {}", traffic.group()))?;
        report.add(&series);
        goals(&traffic, &series, report);
    }
    bench::progress("programs");
    let fenced = scenes
        .iter_mut()
        .find(|scene| scene.rival() == Rival::Fence)
        .context("there is a fence")?;
    for series in programs::measure(fenced, options.either(3, 9))? {
        report.add(&series);
    }
    Ok(())
}

/// Has all scenes make the same traffic, in turns.
fn compare(scenes: &mut [Scene], traffic: &Traffic, options: &Options) -> Result<Series> {
    let rounds = match traffic.kind.is_bulk() {
        true => options.either(2, 20),
        false => options.either(4, 40),
    };
    let ms = match traffic.kind.is_bulk() {
        true => options.either(40, 80),
        false => options.either(10, 20),
    };
    let mut scenes: Vec<_> = scenes
        .iter_mut()
        .filter(|scene| traffic.kind.is_for(scene.rival()))
        .collect();
    let mut series = Series::new(traffic.group(), traffic.kind.unit());
    for round in 0..rounds {
        let mut samples = vec![0.0; scenes.len()];
        for at in turns(round, scenes.len()) {
            samples[at] = scenes[at].sample(traffic, ms)?;
        }
        for (scene, sample) in scenes.iter().zip(samples) {
            series.push(scene.rival().name(), sample);
        }
    }
    Ok(series)
}

/// What a fence must reach.
fn goals(traffic: &Traffic, series: &Series, report: &mut Report) {
    let (fence, none) = (Rival::Fence.name(), Rival::Unfenced.name());
    let ratio = series.ratio(fence, none);
    let group = series.group();
    if traffic.kind.is_for(Rival::OfSelf) {
        let of_self = series.ratio(Rival::OfSelf.name(), none);
        let goal = format!("{group}, with --allow self");
        report.goals.push(Goal::at_most(&goal, of_self, 1.15));
    }
    if traffic.kind.is_for(Rival::Names) {
        let by_names = series.ratio(Rival::Names.name(), none);
        let goal = format!("{group}, by names");
        report.goals.push(Goal::at_most(&goal, by_names, 1.15));
    }
    let goal = match traffic.kind {
        Kind::ConnectUdp => Goal::at_most(group, ratio, 1.10),
        Kind::SendUdp => Goal::at_most(group, ratio, 1.05),
        Kind::ConnectTcp => Goal::at_most(group, ratio, 1.03),
        // Only a fence with a rule for `self` has a goal.
        Kind::ConnectTcpAlone | Kind::ConnectOwn => return,
        Kind::RefusedTcp | Kind::RefusedConnectUdp | Kind::RefusedSendUdp => {
            let goal = format!("{group}, to one that is let, unfenced");
            Goal::at_most(&goal, ratio, 1.0)
        }
        Kind::Upload | Kind::Download | Kind::UploadUdp | Kind::DownloadUdp => {
            Goal::at_least(group, ratio, 0.98)
        }
    };
    report.goals.push(goal);
    for rival in Rival::ALL {
        let to_rival = series.ratio(fence, rival.name());
        if !rival.does_the_same() || to_rival.is_nan() || !traffic.kind.is_against_rivals() {
            continue;
        }
        let goal = format!("{group}, to {}", rival.name());
        report.goals.push(if traffic.kind.is_bulk() {
            // Within what rounds differ by.
            Goal::at_least(&goal, to_rival, 0.99)
        } else {
            Goal::at_most(&goal, to_rival, 1.01)
        });
    }
}
