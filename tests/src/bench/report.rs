//! The results of a benchmark: rows, missing variants, and goals.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::{Deserialize, Serialize};

use super::series::{Row, Series};

/// All results of a benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The benchmark's name.
    pub bench: String,
    /// The machine on which it ran.
    pub machine: Machine,
    /// Whether it was a quick run.
    pub quick: bool,
    /// The measurements, by group.
    pub rows: Vec<Row>,
    /// The variants that could not be measured.
    pub missing: Vec<Missing>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// Notes on the interpretation of the figures.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The model of its processors.
    pub processor: String,
    /// The number of its processors.
    pub processors: usize,
}

/// A variant that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The group of the measurement.
    pub group: String,
    /// The variant.
    pub variant: String,
    /// The reason.
    pub why: String,
}

/// A goal of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The quantity, its limit and the measured number.
    pub goal: String,
    /// Whether the goal was met.
    pub is_met: bool,
}

impl Goal {
    /// The goal that a number is at most `limit`.
    #[must_use]
    pub fn at_most(goal: &str, number: f64, limit: f64) -> Self {
        Self {
            goal: format!("{goal}: {number:.2}, at most {limit}"),
            is_met: number <= limit,
        }
    }

    /// The goal that a number is at least `limit`.
    #[must_use]
    pub fn at_least(goal: &str, number: f64, limit: f64) -> Self {
        Self {
            goal: format!("{goal}: {number:.2}, at least {limit}"),
            is_met: number >= limit,
        }
    }
}

impl Machine {
    /// Describes this machine.
    pub fn this() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            processor: model.map_or("unknown", |(_, model)| model).to_owned(),
            processors: thread::available_parallelism()?.get(),
        })
    }
}

impl Report {
    /// Makes a report without figures.
    pub fn new(bench: &str, quick: bool) -> Result<Self> {
        Ok(Self {
            bench: bench.to_owned(),
            machine: Machine::this()?,
            quick,
            rows: Vec::new(),
            missing: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Adds the measurements of a series.
    pub fn add(&mut self, series: &Series) {
        self.rows.extend(series.rows());
    }

    /// Adds a variant that could not be measured.
    pub fn miss(&mut self, group: &str, variant: &str, why: impl ToString) {
        self.missing.push(Missing {
            group: group.to_owned(),
            variant: variant.to_owned(),
            why: why.to_string(),
        });
    }

    /// Prints a table, the missing variants, the notes, and the goals.
    pub fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let Machine {
            kernel,
            processor,
            processors,
        } = &self.machine;
        writeln!(out, "Linux {kernel}, {processors} x {processor}\n")?;
        let mut table = Table::new();
        table.load_preset(NOTHING).set_header([
            "",
            "VARIANT",
            "MEDIAN",
            "QUARTILES",
            "UNIT",
            "RATIO",
            "ROUNDS",
        ]);
        let mut group = "";
        for row in &self.rows {
            let title = if row.group == group { "" } else { &row.group };
            group = &row.group;
            table.add_row([
                title.to_owned(),
                row.variant.clone(),
                figure(row.median),
                format!("{} … {}", figure(row.low), figure(row.high)),
                row.unit.clone(),
                row.ratio
                    .map_or_else(String::new, |ratio| format!("{ratio:.3}")),
                row.rounds.to_string(),
            ]);
        }
        for column in [2, 3, 5, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(out, "{}\n", table.trim_fmt())?;
        for Missing {
            group,
            variant,
            why,
        } in &self.missing
        {
            writeln!(out, "not measured: {group}, {variant}: {why}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        for Goal { goal, is_met } in &self.goals {
            let word = if *is_met { "met" } else { "MISSED" };
            writeln!(out, "{word:<6}  {goal}")?;
        }
        Ok(())
    }

    /// Writes it as JSON.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }
}

/// Formats a number with about three significant digits.
fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
