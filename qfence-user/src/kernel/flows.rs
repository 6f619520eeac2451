//! What was let through to each destination, in a fence that logs it.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use qfence_common::{Flow, FlowKey, OTHERS, abi};

use super::{LogAllowed, hash, maps::Maps};

/// The map of flows.
pub(super) type Flows = HashMap<MapData, FlowKey, Flow>;

const NOT_READ: &str = "cannot read what was let through";

/// The capacity of the map. A fence that does not log what is let through has no entries.
pub(super) const fn room(log_allowed: LogAllowed) -> u32 {
    match log_allowed {
        LogAllowed::No => 1,
        LogAllowed::Together | LogAllowed::ByCgroup => abi::FLOWS,
    }
}

/// The length of the array of destinations that were forgotten.
pub(super) const fn slots_of_forgotten(log_allowed: LogAllowed) -> u32 {
    match log_allowed {
        LogAllowed::No => 1,
        LogAllowed::Together | LogAllowed::ByCgroup => abi::FORGOTTEN,
    }
}

impl Maps {
    /// Makes room for the destinations that do not fit, which shows that the fence logs what is let through.
    ///
    /// # Errors
    /// If the kernel rejects it.
    pub(super) fn begin_flows(&mut self) -> Result<()> {
        let inserted = self.flows.insert(OTHERS, Flow::default(), 0);
        inserted.context("cannot fill the map of what is let through")
    }

    /// What was let through to each destination so far; `None` if the fence does not log it. [`OTHERS`] has what did not
    /// fit.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn flows(&self) -> Result<Option<Vec<(FlowKey, Flow)>>> {
        match self.flows.get(&OTHERS, 0) {
            Err(MapError::KeyNotFound) => return Ok(None),
            found => found.context(NOT_READ)?,
        };
        let mut flows = Vec::new();
        // A program can add entries meanwhile.
        for key in self.flows.keys().take(2 * abi::FLOWS as usize) {
            let key = key.context(NOT_READ)?;
            match self.flows.get(&key, 0) {
                Err(MapError::KeyNotFound) => {}
                flow => flows.push((key, flow.context(NOT_READ)?)),
            }
        }
        Ok(Some(flows))
    }

    /// Removes a destination, to make room for others. If one of its connections goes on, it has an entry again.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn forget_flow(&mut self, key: &FlowKey) -> Result<()> {
        const NOT_REMOVED: &str = "cannot remove a destination that was let through";
        // Before the entry is gone, so that no packet is left out.
        self.forgotten.set(key.slot(), 1, 0).context(NOT_REMOVED)?;
        hash::remove(&mut self.flows, key).context(NOT_REMOVED)?;
        let count = self.forgotten()? + 1;
        self.forgotten.set(0, count, 0).context(NOT_REMOVED)
    }

    /// How often a destination was removed to make room for others.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn forgotten(&self) -> Result<u64> {
        self.forgotten.get(&0, 0).context(NOT_READ)
    }
}
