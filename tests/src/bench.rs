//! What benchmarks have in common: their options, goals, medians, and files of figures.

use std::{
    env, fs,
    io::{self, Write as _, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// What `cargo xtask bench` says to a benchmark.
#[derive(Debug, Default)]
pub struct Options {
    /// Fewer rounds, for a first look.
    pub quick: bool,
    /// Where the figures go.
    pub json: Option<PathBuf>,
}

impl Options {
    /// Reads the command line: `[--quick] [--json FILE]`.
    pub fn read() -> Result<Self> {
        let mut options = Self::default();
        let mut arguments = env::args_os().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--quick") => options.quick = true,
                Some("--json") => options.json = arguments.next().map(PathBuf::from),
                // What cargo says to every benchmark.
                Some("--bench") => {}
                _ => bail!("[--quick] [--json FILE]"),
            }
        }
        Ok(options)
    }

    /// Writes the figures, if they are wanted.
    pub fn keep(&self, figures: &impl Serialize) -> Result<()> {
        self.json
            .as_deref()
            .map_or(Ok(()), |path| write(path, figures))
    }
}

fn write(path: &Path, figures: &impl Serialize) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    fs::write(path, serde_json::to_vec_pretty(figures)?)
        .with_context(|| format!("write {}", path.display()))
}

/// What was to be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What, with its limit.
    pub goal: String,
    /// Whether it was.
    pub is_met: bool,
}

impl Goal {
    /// That a number is at most so much.
    pub fn at_most(goal: &str, number: f64, limit: f64) -> Self {
        Self {
            goal: format!("{goal}: {number:.2}, at most {limit}"),
            is_met: number <= limit,
        }
    }

    /// That a number is at least so much.
    pub fn at_least(goal: &str, number: f64, limit: f64) -> Self {
        Self {
            goal: format!("{goal}: {number:.2}, at least {limit}"),
            is_met: number >= limit,
        }
    }
}

/// Shows goals, a line each.
pub fn show(out: &mut impl io::Write, goals: &[Goal]) -> Result<()> {
    writeln!(out)?;
    for Goal { goal, is_met } in goals {
        let word = if *is_met { "met" } else { "MISSED" };
        writeln!(out, "{word:<6}  {goal}")?;
    }
    Ok(())
}

/// Of numbers in order the one that such a share of them does not exceed; 0.5 for the median.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "there are not that many"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The median of numbers in any order.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    quantile(&numbers, 0.5)
}

/// How a benchmark ends that returned its goals: badly if one was missed.
#[must_use]
pub fn ends(goals: Result<Vec<Goal>>) -> ExitCode {
    match goals {
        Ok(goals) if goals.iter().all(|goal| goal.is_met) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
