//! Common parts of benchmarks: options, samples that are taken in turns, goals, tables, and files of figures.
//!
//! Figures of different runs are not compared, because the other load of the machine differs. Within a run, the
//! variants take turns in each round, and a ratio compares two figures of the same round.

mod report;
mod series;
pub mod systemd;
mod turns;

use std::{
    env,
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
pub use report::{Goal, Machine, Missing, Report};
pub use series::{Row, Series, median, quantile};
pub use turns::turns;

use crate::progress::note;

/// The options that `cargo xtask bench` passes to a benchmark.
#[derive(Debug, Default)]
pub struct Options {
    /// Fewer rounds, for a first look.
    pub quick: bool,
    /// The file to which the figures are written.
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
                // cargo passes this to every benchmark.
                Some("--bench") => {}
                _ => bail!("[--quick] [--json FILE]"),
            }
        }
        Ok(options)
    }

    /// Chooses between two numbers: for a quick run, or for a whole one.
    #[must_use]
    pub fn either<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }
}

/// The `main` of a benchmark: measures, prints the tables and the goals, and writes the figures. Returns a failure if a
/// goal was missed or the measurement failed.
pub fn main(
    name: &'static str,
    measure: impl FnOnce(&Options, &mut Report) -> Result<()>,
) -> ExitCode {
    let run = || -> Result<bool> {
        let options = Options::read()?;
        let mut report = Report::new(name, options.quick)?;
        measure(&options, &mut report)?;
        let mut out = stdout().lock();
        report.show(&mut out).context("print the table")?;
        if let Some(path) = &options.json {
            report.write(path)?;
        }
        Ok(report.goals.iter().all(|goal| goal.is_met))
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the name of the current measurement.
pub fn progress(what: &str) {
    note(&format!("{what} ..."));
}
