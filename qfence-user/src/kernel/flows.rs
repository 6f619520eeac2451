//! What was let through to each destination, in a fence that logs it.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use qfence_common::{Flow, FlowKey, OTHERS, abi};

use super::{LogAllowed, maps::Maps};

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

    /// Removes a destination, to make room for others.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn forget_flow(&mut self, key: &FlowKey) -> Result<()> {
        match self.flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).context("cannot remove a destination that was let through"),
        }
    }
}
