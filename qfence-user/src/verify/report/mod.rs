//! The results of `verify`, as a table and as JSON.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    closures::report::Closures,
    devices::report::Devices,
    judge::{End, Trial, Verdict},
};

/// The start of the report's sentence if the fence holds.
pub const HOLDS: &str = "The fence holds: ";

/// One row: the trials of one attempt, and the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The attempt, in the syntax of `qfence-verify probe` or in words.
    pub attempt: String,
    /// The result without the fence.
    pub without: End,
    /// The result with the fence.
    pub with: End,
    /// The layers that refused it.
    pub layers: Vec<&'static str>,
    /// The error with the fence, by name.
    pub errno: Option<String>,
    /// The duration with the fence, in milliseconds.
    pub ms: f64,
    /// The verdict.
    pub verdict: Verdict,
}

impl Row {
    /// The row of two trials.
    #[must_use]
    pub fn new(attempt: &str, without: &Trial, with: Trial, verdict: Verdict) -> Self {
        Self {
            attempt: attempt.to_owned(),
            without: without.end,
            with: with.end,
            layers: with.layers,
            errno: with.errno,
            ms: with.ms,
            verdict,
        }
    }
}

/// The whole report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether every attempt was stopped and everything that must work works.
    pub holds: bool,
    /// The kernel's release.
    pub kernel: String,
    /// The attempts to reach the host.
    pub attempts: Vec<Row>,
    /// The traffic that must work.
    pub must_work: Vec<Row>,
    /// The frames of guests with tap devices.
    pub devices: Devices,
    /// The ways out that are no packets.
    pub closures: Closures,
}

impl Report {
    /// The report of these rows. It needs at least one attempt that was stopped and one that works.
    #[must_use]
    pub fn new(
        kernel: String,
        attempts: Vec<Row>,
        must_work: Vec<Row>,
        devices: Devices,
        closures: Closures,
    ) -> Self {
        let good = |rows: &[Row], proof| {
            rows.iter().all(|row| row.verdict.is_good())
                && rows.iter().any(|row| row.verdict == proof)
        };
        Self {
            holds: good(&attempts, Verdict::Stopped)
                && good(&must_work, Verdict::Works)
                && devices.verdicts().all(Verdict::is_good)
                && (devices.rows.is_empty() || devices.is_shown())
                && closures.verdicts().all(Verdict::is_good),
            kernel,
            attempts,
            must_work,
            devices,
            closures,
        }
    }

    /// The report of the frames of guests, alone. It needs some that were stopped, by each of the two layers, and some that
    /// arrived.
    #[must_use]
    pub fn of_devices(kernel: String, devices: Devices) -> Self {
        Self {
            holds: devices.is_shown() && devices.verdicts().all(Verdict::is_good),
            kernel,
            attempts: Vec::new(),
            must_work: Vec::new(),
            devices,
            closures: Closures::default(),
        }
    }

    /// The report of the ways out that are no packets, alone. It needs at least one that is closed.
    #[must_use]
    pub fn of_closures(kernel: String, closures: Closures) -> Self {
        let is_shown = closures
            .verdicts()
            .any(|verdict| verdict == Verdict::Stopped);
        Self {
            holds: is_shown && closures.verdicts().all(Verdict::is_good),
            kernel,
            attempts: Vec::new(),
            must_work: Vec::new(),
            devices: Devices::default(),
            closures,
        }
    }

    /// The rows of the first tables with a bad verdict.
    #[must_use]
    pub fn faults(&self) -> Vec<&Row> {
        let rows = self.attempts.iter().chain(&self.must_work);
        rows.filter(|row| !row.verdict.is_good()).collect()
    }

    /// The report as tables and a sentence.
    #[must_use]
    pub fn text(&self) -> String {
        let parts = [
            text_of("ATTEMPT TO REACH THE HOST", &self.attempts),
            text_of("WHAT MUST WORK", &self.must_work),
            self.devices.text(),
            self.closures.text(),
            self.sentence(),
        ];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("\n\n")
    }

    /// The report in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let rows = || self.attempts.iter().chain(&self.must_work);
        let in_rows = |verdict| rows().filter(|row| row.verdict == verdict).count();
        let in_closures = |verdict| {
            let rows = self.closures.rows.iter();
            rows.filter(|row| row.verdicts().any(|found| found == verdict))
                .count()
        };
        let in_devices = |verdict| {
            let verdicts = self.devices.verdicts();
            verdicts.filter(|found| *found == verdict).count()
        };
        let count = |verdict| in_rows(verdict) + in_devices(verdict) + in_closures(verdict);
        let mut parts = Vec::new();
        if !self.attempts.is_empty() {
            let stopped = in_rows(Verdict::Stopped);
            parts.push(format!("{stopped} attempts to reach the host were stopped"));
        }
        if !self.devices.rows.is_empty() {
            let stopped = in_devices(Verdict::Stopped);
            parts.push(format!("{stopped} frames of guests were stopped"));
        }
        if !self.closures.rows.is_empty() {
            let closed = in_closures(Verdict::Stopped);
            parts.push(format!("{closed} ways out that are no packets are closed"));
        }
        let frames_that_work = in_devices(Verdict::Works);
        let works = in_rows(Verdict::Works) + frames_that_work;
        let all = self.must_work.len() + frames_that_work + in_devices(Verdict::Broken);
        if all > 0 {
            parts.push(format!("{works} of {all} things that must work do"));
        }
        let untried = count(Verdict::Untried);
        parts.push(format!(
            "{untried} could not be tried on Linux {}",
            self.kernel
        ));
        let done = parts.join(", ");
        if self.holds {
            return format!("{HOLDS}{done}.");
        }
        format!(
            "THE FENCE DOES NOT HOLD: {} passed, {} are broken, {} are unproven; {done}.",
            count(Verdict::Passed),
            count(Verdict::Broken),
            count(Verdict::Unproven)
        )
    }
}

/// A table as text; empty if there are no rows.
fn text_of(title: &str, rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header([title, "WITHOUT", "WITH", "LAYER", "ERRNO", "MS", "VERDICT"]);
    for row in rows {
        let layers = row.layers.join("+");
        table.add_row([
            row.attempt.as_str(),
            word(row.without),
            word(row.with),
            if layers.is_empty() { "-" } else { &layers },
            row.errno.as_deref().unwrap_or("-"),
            &format!("{:.1}", row.ms),
            row.verdict.name(),
        ]);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

pub(super) fn word(end: End) -> &'static str {
    match end {
        End::Reached => "reached",
        End::Arrived => "arrived",
        End::Nothing => "nothing",
        End::Unsupported => "unsupported",
        End::Unprivileged => "not allowed",
    }
}

#[cfg(test)]
mod tests;
