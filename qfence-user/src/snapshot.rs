//! What a fence has counted up to now: attempts, and traffic.

use std::path::Path;

use anyhow::Result;
use qfence_common::{Traffic, Way};

use crate::kernel::{Counts, Maps};

/// The counters of one fence, read one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The attempts.
    pub counts: Counts,
    /// What left.
    pub sent: Traffic,
    /// What was refused, in either direction.
    pub refused: Traffic,
    /// What arrived.
    pub received: Traffic,
}

impl Snapshot {
    /// That of the fence whose links are in `pins`.
    ///
    /// # Errors
    /// If its maps are not there, or are none of this version's.
    pub fn of(pins: &Path) -> Result<Self> {
        let maps = Maps::open(pins)?;
        Ok(Self {
            counts: maps.counts()?,
            sent: maps.traffic(Way::Sent)?,
            refused: maps.traffic(Way::Refused)?,
            received: maps.traffic(Way::Received)?,
        })
    }
}
