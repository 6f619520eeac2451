//! What benchmarks have in common: options, samples that are taken in turns, goals, tables, and files of figures.
//!
//! Figures of different runs are not compared: what else the machine does is not the same. Within a run the
//! variants of one thing take turns, round by round, and a ratio is that of two figures of one round.

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

    /// One of two numbers: for a first look, or for figures.
    #[must_use]
    pub fn either<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }
}

/// A benchmark's `main`: measures, shows the tables and the goals, and writes the figures. It ends badly if a
/// goal was missed or the measuring failed.
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

/// Says what is being measured, while it is.
pub fn progress(what: &str) {
    note(&format!("{what} ..."));
}
