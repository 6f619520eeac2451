//! What was let through to each destination, in a fence that logs it.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use qfence_common::{Flow, OTHERS, Sighting, abi};

use super::maps::Maps;

/// The map of flows.
pub(super) type Flows = HashMap<MapData, Sighting, Flow>;

const NOT_READ: &str = "cannot read what was let through";

/// The capacity of the map. A fence that does not log what is let through has no entries.
pub(super) const fn room(is_logged: bool) -> u32 {
    if is_logged { abi::FLOWS } else { 1 }
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
    pub fn flows(&self) -> Result<Option<Vec<(Sighting, Flow)>>> {
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
    pub fn forget_flow(&mut self, key: &Sighting) -> Result<()> {
        match self.flows.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error).context("cannot remove a destination that was let through"),
        }
    }
}
