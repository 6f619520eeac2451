//! A fence as it is shown, and what happens in it a second.

use std::{collections::VecDeque, time::Duration};

use crate::{fence::registry::Condition, kernel::snapshot::Snapshot};

/// A fence as it is shown.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is like.
    pub condition: Condition,
    /// What it has counted, if that can be read.
    pub counted: Option<Snapshot>,
    /// What happens a second, once there are two samples.
    pub rates: Option<Rates>,
    /// Attempts a second up to now.
    pub history: VecDeque<u64>,
}

/// What happens a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Attempts.
    pub attempts: u64,
    /// Bytes that leave.
    pub sent: u64,
    /// Bytes that arrive.
    pub received: u64,
}

impl Row {
    /// Attempts so far, if they can be read.
    #[must_use]
    pub fn attempts(&self) -> Option<u64> {
        self.counted.map(|counted| counted.counts.on_record())
    }
}

impl Rates {
    /// What happened a second between two snapshots; `None` if the fence is another one of the same name, or
    /// no time has passed.
    #[must_use]
    pub fn between(before: &Snapshot, now: &Snapshot, passed: Duration) -> Option<Self> {
        let ms = u64::try_from(passed.as_millis())
            .ok()
            .filter(|ms| *ms > 0)?;
        let rate = |before: u64, now: u64| Some(now.checked_sub(before)?.saturating_mul(1000) / ms);
        Some(Self {
            attempts: rate(before.counts.on_record(), now.counts.on_record())?,
            sent: rate(before.sent.bytes, now.sent.bytes)?,
            received: rate(before.received.bytes, now.received.bytes)?,
        })
    }
}
