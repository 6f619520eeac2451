//! A line of the record: what was tried, or how much there is no line of its own for.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod attempt;
mod clock;

pub use attempt::{Attempt, NotUnderstood};
pub use clock::{at, boot_time};

use crate::base::printable::printable;

/// The version of what lines look like: another one if a field goes or changes its meaning.
pub const VERSION: u32 = 1;

/// One line. Serialized, its fields are those of the JSON log, one object a line; `docs/record.schema.json`
/// describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// When, wall clock, RFC 3339 in UTC: of an attempt when it was made, of several when the last one was.
    pub time: Timestamp,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// The line's number in the fence's record, from 1 on.
    pub seq: u64,
    /// What it tells of.
    #[serde(flatten)]
    pub body: Body,
    /// How many attempts it tells of.
    pub count: u64,
    /// How many attempts this line and all before it tell of.
    pub total: u64,
}

/// What a line tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Body {
    /// The first attempt of its key.
    Attempt(Box<Attempt>),
    /// More of a key, since the last line about it.
    Repeats(Box<Attempt>),
    /// What would have been more lines than are written in a second.
    Folded {
        /// How many they would have been.
        lines: u64,
    },
    /// Attempts that the kernel had no room to put on record, or that nobody read in time.
    Lost,
    /// Attempts whose lines are not here: this log was too slow for them, or could not be written. If it is not the fence's
    /// own record, they are in that.
    Dropped,
}

impl Line {
    /// As text, for where the fence is known: the time of day, and what it tells of.
    #[must_use]
    pub fn brief(&self) -> String {
        let text = self.to_string();
        let rest = text.splitn(3, ' ').nth(2).unwrap_or_default();
        format!("{} {rest}", self.time.strftime("%H:%M:%S"))
    }

    /// That the lines before this one, which tell of so many attempts, are missing.
    #[must_use]
    pub(super) fn dropped_before(&self, attempts: u64) -> Self {
        self.dropped(
            self.seq.saturating_sub(1),
            self.total - self.count,
            attempts,
        )
    }

    /// That the lines up to this one, which tell of so many attempts, are missing.
    #[must_use]
    pub(super) fn dropped_after(&self, attempts: u64) -> Self {
        self.dropped(self.seq, self.total, attempts)
    }

    fn dropped(&self, seq: u64, total: u64, count: u64) -> Self {
        Self {
            v: self.v,
            time: Timestamp::now(),
            fence: Arc::clone(&self.fence),
            seq,
            body: Body::Dropped,
            count,
            total,
        }
    }

    /// As JSON, without a line's end.
    ///
    /// # Errors
    /// None that a line of this program's can have.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// `TIME FENCE denied tcp 127.0.0.1:22 connect4 pid 4242 (qemu-system-x86) cgroup 77 rule NAME`, of a process that is not
/// known `pid unknown`
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time, fence, count, ..
        } = self;
        let text = match &self.body {
            Body::Attempt(attempt) => attempt.to_string(),
            Body::Repeats(attempt) => format!("{attempt} again {}", times(*count)),
            Body::Folded { lines } => {
                format!("folded {count} attempts, which would be {lines} lines more")
            }
            Body::Lost => format!(
                "lost {count} attempts: there was no room to record them, or nobody read them"
            ),
            Body::Dropped => format!(
                "dropped {count} attempts: this log was too slow for them, or could not be written"
            ),
        };
        // A line that was read from a file can have anything in it.
        let text = format!("{time:.6} {fence} {text}");
        f.write_str(&printable(text.as_bytes()))
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
