//! A line of the record: an attempt, or the number of attempts without a line of their own.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod allowed;
mod attempt;
mod clock;
mod lookup;
mod missing;

pub use allowed::{Allowed, Destination};
use attempt::Told;
pub use attempt::{Attempt, NotUnderstood};
pub use clock::{at, boot_time};
pub use lookup::Lookup;
pub use missing::Missing;

use crate::base::printable::{printable, printable_json};

/// The version of the line format. It changes if a field is added, removed or redefined.
pub const VERSION: u32 = 1;

/// One line. Serialized, it is one object of the JSON log; `docs/record.schema.json` describes its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The version of the format, [`VERSION`].
    pub v: u32,
    /// The time of the attempt, or of the last one of several: wall clock, RFC 3339 in UTC.
    pub time: Timestamp,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// What the fence is attached to, if others have started that.
    #[serde(default)]
    pub workload: Option<Arc<str>>,
    /// The line's number in the fence's record, starting at 1.
    pub seq: u64,
    /// What the line reports.
    #[serde(flatten)]
    pub body: Body,
    /// The number of attempts that this line reports.
    pub count: u64,
    /// The number of attempts that this line and all earlier lines report.
    pub total: u64,
    /// The number of attempts that the reader has seen until this line and that the fence's own counters do not have. Only
    /// kept lines have it (`stamp.rs`), for the next reader.
    #[serde(default, skip_serializing)]
    pub beside: u64,
}

/// What a line reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Body {
    /// The first attempt of its key.
    Attempt(Box<Attempt>),
    /// Repeats of a key since the last line about it.
    Repeats(Box<Attempt>),
    /// The first of what was let through to a destination, if the fence logs that. Its count is 0.
    Allowed(Box<Allowed>),
    /// What was let through to a destination since the last line about it. Its count is 0.
    Traffic(Box<Allowed>),
    /// Look-ups of a name, if the policy has rules by name. Its count is 0.
    Lookup(Box<Lookup>),
    /// A summary of the lines that exceeded the limit per second.
    Folded {
        /// The number of lines that this line replaces.
        lines: u64,
    },
    /// The target has been started anew, and ran unfenced until this line (`attach --restart`). Its count is 0.
    Open {
        /// For how long, at most.
        milliseconds: u64,
    },
    /// Attempts that the kernel had no room to record, or that were not read in time.
    Lost,
    /// Lines that are missing here, because this log was too slow or could not be written. Lines that are missing in a
    /// sink are in the fence's own record.
    Dropped {
        /// The number of missing lines. The count is that of their attempts, and is 0 if they are about none.
        lines: u64,
    },
}

impl Body {
    /// Whether the line is about one process or destination.
    #[must_use]
    pub const fn is_of_one(&self) -> bool {
        match self {
            Self::Attempt(_) | Self::Repeats(_) | Self::Allowed(_) | Self::Traffic(_) => true,
            Self::Lookup(_)
            | Self::Folded { .. }
            | Self::Open { .. }
            | Self::Lost
            | Self::Dropped { .. } => false,
        }
    }
}

impl Line {
    /// The text without date and fence name.
    #[must_use]
    pub fn brief(&self) -> String {
        let text = self.to_string();
        let rest = text.splitn(3, ' ').nth(2).unwrap_or_default();
        format!("{} {rest}", self.time.strftime("%H:%M:%S"))
    }

    /// A line that reports that the lines before this one are missing.
    #[must_use]
    pub(super) fn dropped_before(&self, missing: Missing) -> Self {
        self.dropped(self.seq.saturating_sub(1), self.total - self.count, missing)
    }

    /// A line that reports that the lines up to this one are missing.
    #[must_use]
    pub(super) fn dropped_after(&self, missing: Missing) -> Self {
        self.dropped(self.seq, self.total, missing)
    }

    fn dropped(&self, seq: u64, total: u64, Missing { lines, attempts }: Missing) -> Self {
        Self {
            v: self.v,
            time: Timestamp::now(),
            fence: Arc::clone(&self.fence),
            workload: self.workload.clone(),
            seq,
            body: Body::Dropped { lines },
            count: attempts,
            total,
            beside: self.beside,
        }
    }

    /// JSON, without a newline.
    ///
    /// # Errors
    /// Never for a line that this program made.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self).map(printable_json)
    }
}

/// `TIME FENCE denied tcp 127.0.0.1:22 connect4 pid 4242 (qemu-system-x86) cgroup 77 rule NAME`. If the process is not
/// known: `pid unknown`. In a fence that others' processes are in: `cgroup 77 of unit web.service`.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            fence,
            workload,
            count,
            ..
        } = self;
        let text = match &self.body {
            Body::Attempt(attempt) => Told(attempt, workload.as_deref()).to_string(),
            Body::Repeats(attempt) => {
                let attempt = Told(attempt, workload.as_deref());
                format!("{attempt} again {}", times(*count))
            }
            Body::Allowed(allowed) => format!("allowed {}", allowed.of(workload.as_deref())),
            Body::Traffic(allowed) => format!("traffic {}", allowed.of(workload.as_deref())),
            Body::Lookup(lookup) => lookup.to_string(),
            Body::Folded { lines } => {
                format!("folded {count} attempts: this line replaces {lines} lines")
            }
            Body::Open { milliseconds } => format!(
                "open for at most {}: the target was started anew, and was not fenced until now",
                seconds(*milliseconds)
            ),
            Body::Lost => format!(
                "lost {count} attempts: the kernel had no room to record them, or they were not read in time"
            ),
            Body::Dropped { lines } => format!(
                "dropped {lines} lines with {count} attempts: this log was too slow, or writing to it failed"
            ),
        };
        // A line that was read from a file can contain any characters.
        let text = format!("{time:.6} {fence} {text}");
        f.write_str(&printable(text.as_bytes()))
    }
}

/// A time in words.
#[must_use]
pub fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
