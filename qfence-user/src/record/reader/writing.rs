//! Adds lines to the record, and hands them on to the sinks.

use std::sync::Arc;

use anyhow::Result;
use jiff::Timestamp;

use super::Reader;
use crate::{
    base::console::notify,
    record::{
        line::{Body, Line, Missing, VERSION},
        stamp,
    },
};

impl Reader {
    /// Adds a line, which takes its length from the budget.
    pub(super) fn add(&mut self, time: Timestamp, body: Body, count: u64) {
        let line = self.line(time, body, count);
        let length = self.push(line);
        self.budget.take(length);
    }

    /// Adds a line about an attempt of this workload, which takes its length from the budget.
    pub(super) fn add_of(
        &mut self,
        workload: Option<Arc<str>>,
        (time, body, count): (Timestamp, Body, u64),
    ) {
        let line = Line {
            workload,
            ..self.line(time, body, count)
        };
        let length = self.push(line);
        self.budget.take(length);
    }

    /// The next line.
    pub(super) fn line(&mut self, time: Timestamp, body: Body, count: u64) -> Line {
        self.seq += 1;
        self.total += count;
        Line {
            v: VERSION,
            time,
            fence: Arc::clone(&self.fence),
            workload: self.workloads.target(),
            seq: self.seq,
            body,
            count,
            total: self.total,
            beside: self.beside,
        }
    }

    /// Adds a line without a budget. Returns its length, in bytes.
    pub(super) fn push(&mut self, line: Line) -> usize {
        let mut length = 0;
        match stamp::stamped(&line) {
            Ok(kept) => {
                length = kept.len();
                self.text.push_str(&kept);
                self.text.push('\n');
            }
            Err(error) => notify(format_args!("cannot write a line of the record: {error}")),
        }
        self.lines.push(Arc::new(line));
        length
    }

    /// Writes the new lines to the record, and returns them. The sinks get them even if that write fails.
    pub(super) fn hand_on(&mut self) -> Vec<Arc<Line>> {
        let lines = std::mem::take(&mut self.lines);
        if let Some(first) = lines.first() {
            match self.keep(first) {
                Ok(()) => {
                    self.has_failed = false;
                    self.unkept = Missing::default();
                }
                Err(error) => {
                    lines.iter().for_each(|line| self.unkept.add(line));
                    // Reported once, until a write succeeds.
                    if !self.has_failed {
                        notify(format_args!("error: {error:#}"));
                        self.has_failed = true;
                    }
                }
            }
            self.text.clear();
        }
        lines
    }

    /// Writes the new lines, of which `first` is the first, after a line that reports missing ones.
    fn keep(&mut self, first: &Line) -> Result<()> {
        if !self.unkept.is_nothing() {
            let missing = stamp::stamped(&first.dropped_before(self.unkept))?;
            self.text.insert_str(0, &format!("{missing}\n"));
        }
        Ok(self.appender.write(&self.text)?)
    }
}
