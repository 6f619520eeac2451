//! What is left of a guest's network through QEMU's slirp, and of a real guest's: in a fence, and without.
//! `cargo xtask bench` runs it.
//!
//! `guest [--quick] [--json FILE]`

mod server;
mod traffic;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
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
const ROUNDS: usize = 20;

/// A guest of a QEMU that nobody holds.
const UNFENCED: &str = "unfenced";
/// A guest of a QEMU in a fence.
const FENCED: &str = "qfence";

fn main() -> ExitCode {
    bench::main("guest", measure)
}

fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let _server = Server::start(&world)?;
    let mut all =
        Traffic::ALL.map(|traffic| (traffic, Series::new(traffic.name(), traffic.unit())));
    // A guest is a bit faster or slower than another for as long as it runs, whatever holds it; so it is some.
    for boot in 0..options.either(1, BOOTS) {
        bench::progress(&format!("two guests, pair {}", boot + 1));
        let fence = Fence::new("guest")?.with(&["--user", "nobody"]);
        let none: [&str; 0] = [];
        let mut unfenced = Guest::boot(&world, &none, &linux::Options::default())
            .context("boot a guest without a fence")?;
        let mut fenced = Guest::boot(&world, &fence.launcher(), &linux::Options::default())
            .context("boot a guest in a fence")?;
        for round in 0..options.either(6, ROUNDS) {
            for (traffic, series) in &mut all {
                let mut guests = [(UNFENCED, &mut unfenced), (FENCED, &mut fenced)];
                // Neither is always the one that finds the caches as the other left them.
                if round % 2 == 1 {
                    guests.reverse();
                }
                for (variant, guest) in guests {
                    series.push(variant, traffic.sample(guest)?);
                }
            }
        }
    }
    for (traffic, series) in &all {
        report.add(series);
        if traffic.is_bulk() {
            report.goals.push(Goal::at_least(
                &format!("{}, fenced to unfenced", series.group()),
                series.ratio(FENCED, UNFENCED),
                LEFT,
            ));
        }
    }
    Ok(())
}
