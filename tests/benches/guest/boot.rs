//! How long a guest takes until its shell answers, from the start of QEMU.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tests::{
    bench::{self, Goal, Options, Report, Series, turns},
    fence::Fence,
    guest::linux::{self, Guest},
    world::World,
};

use super::{FENCED, UNFENCED};

/// The maximum time to that of a guest without a fence.
const MOST: f64 = 1.03;
/// How many rounds.
const ROUNDS: usize = 12;
/// How many for a first look.
const FEW_ROUNDS: usize = 3;

/// A guest of a QEMU in a fence that also closes files, sockets and system calls.
const STRICT: &str = "qfence --strict";

/// The variants, and the options of their fences.
const VARIANTS: [(&str, Option<&[&str]>); 3] = [
    (UNFENCED, None),
    (FENCED, Some(&["--user", "nobody"])),
    (STRICT, Some(&["--user", "nobody", "--strict"])),
];

/// Measures it in turns. The start of the fence is part of the time.
pub(crate) fn measure(options: &Options, report: &mut Report, world: &World) -> Result<()> {
    let mut series = Series::new("a boot", "s");
    for round in 0..options.either(FEW_ROUNDS, ROUNDS) {
        bench::progress(&format!("boots of guests, round {}", round + 1));
        for index in turns(round, VARIANTS.len()) {
            let (variant, fence) = VARIANTS[index];
            series.push(variant, boot(world, fence).context(variant)?);
        }
    }
    report.add(&series);
    for variant in [FENCED, STRICT] {
        report.goals.push(Goal::at_most(
            &format!("a boot, {variant} to {UNFENCED}"),
            series.ratio(variant, UNFENCED),
            MOST,
        ));
    }
    Ok(())
}

/// Boots a guest; returns the seconds that it took.
fn boot(world: &World, fence: Option<&[&str]>) -> Result<f64> {
    let fence = fence.map(|options| Ok::<_, anyhow::Error>(Fence::new("boot")?.with(options)));
    let fence = fence.transpose()?;
    let launcher = fence.as_ref().map_or(Vec::new(), Fence::launcher);
    let begun = Instant::now();
    let _guest = Guest::boot(world, &launcher, &linux::Options::default())?;
    Ok(begun.elapsed().as_secs_f64())
}
