//! What a fence leaves of the network of a real guest, through QEMU's slirp, and how long the guest boots. `cargo xtask bench`
//! runs it.
//!
//! `guest [--quick] [--json FILE]`

mod boot;
mod server;
mod traffic;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use server::Server;
use tests::{
    bench::{self, Goal, Options, Report, Series},
    fence::Fence,
    guest::linux::{self, Guest},
    world::World,
};
use traffic::Traffic;

/// What must be left of the throughput.
const LEFT: f64 = 0.99;
/// How many pairs of guests.
const BOOTS: usize = 4;
/// How many rounds with each pair.
const ROUNDS: usize = 26;
/// How many for a first look, with one pair.
const FEW_ROUNDS: usize = 8;

/// A guest of a QEMU that nobody holds.
const UNFENCED: &str = "unfenced";
/// A guest of a QEMU in a fence.
const FENCED: &str = "qfence";

fn main() -> ExitCode {
    bench::main("guest", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    stay_on_one_processor()?;
    let world = World::new()?;
    boot::measure(options, report, &world)?;
    let _server = Server::start(&world)?;
    let mut all =
        Traffic::ALL.map(|traffic| (traffic, Series::new(traffic.name(), traffic.unit())));
    // One guest is a little faster than another for as long as it runs, whatever holds it; so there are some.
    for pair in 1..=options.either(1, BOOTS) {
        bench::progress(&format!("the traffic of two guests, pair {pair}"));
        let fence = Fence::new("guest")?.with(&["--user", "nobody"]);
        let mut unfenced = Guest::boot(&world, &[""; 0], &linux::Options::default())
            .context("boot a guest without a fence")?;
        let mut fenced = Guest::boot(&world, &fence.launcher(), &linux::Options::default())
            .context("boot a guest in a fence")?;
        for round in 0..options.either(FEW_ROUNDS, ROUNDS) {
            for (traffic, series) in &mut all {
                // It is the throughput that has a goal, and needs the more samples.
                if round % 2 == 1 && !traffic.is_bulk() {
                    continue;
                }
                let mut guests = [(UNFENCED, &mut unfenced), (FENCED, &mut fenced)];
                // Neither is always the one that comes after the other.
                if round % 4 > 1 {
                    guests.reverse();
                }
                for (variant, guest) in guests {
                    series.push(variant, traffic.sample(guest)?);
                }
            }
        }
    }
    report.notes.push(
        "QEMU, its guest and the server share one processor: nothing that a fence costs is done on another"
            .to_owned(),
    );
    for (traffic, series) in &all {
        report.add(series);
        if traffic.is_bulk() {
            judge(options, report, series);
        }
    }
    Ok(())
}

/// Holds the throughput to its goal, and says how much the ratio tells. There are too few rounds in a first
/// look to tell a percent.
fn judge(options: &Options, report: &mut Report, series: &Series) {
    let group = series.group();
    if let [.., row] = &series.rows()[..]
        && let Some([low, high]) = row.ratio_quartiles
        && let Ok(rounds) = u32::try_from(row.rounds)
    {
        // Of a median, if the rounds are spread as by chance.
        let error = 1.2533 * (high - low) / 1.349 / f64::from(rounds).sqrt();
        report.notes.push(format!(
            "{group}: the ratio has a standard error of {error:.3}"
        ));
    }
    if options.quick {
        report.miss(
            group,
            "the goal",
            format!("a first look is too short to tell {LEFT} from 1"),
        );
        return;
    }
    report.goals.push(Goal::at_least(
        &format!("{group}, fenced to unfenced"),
        series.ratio(FENCED, UNFENCED),
        LEFT,
    ));
}

/// Puts this process on the last processor that it may use, and with it all that it starts. The rounds spread
/// half as wide as with QEMU's threads and the server moving about.
fn stay_on_one_processor() -> Result<()> {
    let this = Pid::from_raw(0);
    let may = sched_getaffinity(this)?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|&processor| may.is_set(processor).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("there is a processor")?)?;
    sched_setaffinity(this, &one).context("stay on one processor")
}
