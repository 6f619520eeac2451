//! The number of lines that are missing in a log.

use super::{Body, Line};

/// Lines that are missing in a log, and the attempts that they report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The number of lines. Lines about no attempt count as well.
    pub lines: u64,
    /// The number of attempts.
    pub attempts: u64,
}

impl Missing {
    /// Adds a line. If that line reports missing ones, it stands for these.
    pub fn add(&mut self, line: &Line) {
        self.lines += match line.body {
            Body::Dropped { lines } => lines,
            _ => 1,
        };
        self.attempts += line.count;
    }

    /// Whether no line is missing.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.lines == 0
    }
}
