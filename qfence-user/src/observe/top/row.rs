//! A fence as shown, with its rates.

use std::{collections::VecDeque, time::Duration};

use crate::{fence::registry::Condition, kernel::snapshot::Snapshot};

/// A fence as shown.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the fence.
    pub name: String,
    /// The condition of the fence.
    pub condition: Condition,
    /// Its counters, if they can be read.
    pub counted: Option<Snapshot>,
    /// The number of look-ups that were refused.
    pub lookups: u64,
    /// Its rates, once there are two samples.
    pub rates: Option<Rates>,
    /// The attempts per second so far.
    pub history: VecDeque<u64>,
}

/// Rates, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Attempts and refused look-ups per second.
    pub attempts: u64,
    /// Bytes sent per second.
    pub sent: u64,
    /// Bytes received per second.
    pub received: u64,
}

impl Row {
    /// The total of attempts and of refused look-ups, if it can be read.
    #[must_use]
    pub fn attempts(&self) -> Option<u64> {
        self.counted.map(|counted| attempts(&counted, self.lookups))
    }
}

fn attempts(counted: &Snapshot, lookups: u64) -> u64 {
    counted.counts.on_record().saturating_add(lookups)
}

impl Rates {
    /// The rates between two snapshots, each with the number of refused look-ups. `None` if another fence has the name now,
    /// or no time has passed.
    #[must_use]
    pub fn between(
        (before, lookups_before): (&Snapshot, u64),
        (now, lookups): (&Snapshot, u64),
        passed: Duration,
    ) -> Option<Self> {
        let ms = u64::try_from(passed.as_millis())
            .ok()
            .filter(|ms| *ms > 0)?;
        let rate = |before: u64, now: u64| Some(now.checked_sub(before)?.saturating_mul(1000) / ms);
        Some(Self {
            attempts: rate(attempts(before, lookups_before), attempts(now, lookups))?,
            sent: rate(before.sent.bytes, now.sent.bytes)?,
            received: rate(before.received.bytes, now.received.bytes)?,
        })
    }
}
