//! What the programs and who changes or follows a policy tell each other of a fence as a whole: see
//! [`qfence_common::pulse`].

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::MapError;
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use qfence_common::{Change, Marks, Peer, Pulse, abi, peer::Heard};

use super::maps::Maps;

/// `BPF_EXIST`: in place of what is there.
const EXIST: u64 = 2;

const NO_CHANGE: &str = "cannot read when the policy was changed";

impl Maps {
    /// Says that the policy was changed, after it was: who answers what was asked under the one before does not count as
    /// speaking first any more. And forgets who did: what they may be answered is asked of a policy again when they
    /// next speak.
    ///
    /// # Errors
    /// If the clock or a map cannot be read or written. What could be forgotten is.
    pub fn note_change(&mut self) -> Result<()> {
        let before = self.change()?;
        self.set_change(Change {
            changed_ns: since_boot()?,
            ..before
        })?;
        self.forget_peers()
    }

    /// Has the programs judge each packet of the TCP connections that the fence opened, or those alone that open one.
    ///
    /// # Errors
    /// If the map cannot be read or written.
    pub fn judge_standing(&mut self, judges: bool) -> Result<()> {
        let before = self.change()?;
        self.set_change(Change {
            judges_standing: judges.into(),
            ..before
        })
    }

    /// Whether the programs judge that.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn judges_standing(&self) -> Result<bool> {
        Ok(self.change()?.judges_standing != 0)
    }

    fn change(&self) -> Result<Change> {
        self.change.get(&0, 0).context(NO_CHANGE)
    }

    fn set_change(&mut self, change: Change) -> Result<()> {
        self.change
            .set(0, change, 0)
            .context("cannot note that the policy was changed")
    }

    /// What the programs have noted of their fence.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn marks(&self) -> Result<Marks> {
        self.marks
            .get(&0, 0)
            .context("cannot read what was noted of the fence")
    }

    /// Forgets when peers on the host were last heard of, and all of those that may have been answering.
    ///
    /// # Errors
    /// If the map cannot be read or written. What could be forgotten is.
    fn forget_peers(&mut self) -> Result<()> {
        let context = "cannot forget which peers spoke first";
        let peers: Vec<(Peer, u64)> = self
            .peers
            .iter()
            .take(abi::PEERS as usize)
            .collect::<Result<_, _>>()
            .context(context)?;
        for (peer, heard) in peers {
            let changed = match Heard(heard).forgotten() {
                Some(forgotten) => self.peers.insert(peer, forgotten.0, EXIST),
                None => self.peers.remove(&peer),
            };
            match changed {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                // A peer that made room for another meanwhile.
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                Err(error) => return Err(error).context(context),
            }
        }
        Ok(())
    }

    /// Says that the policy in force is true to the host now: whoever follows the host's addresses does so once a
    /// second, see [`qfence_common::pulse`].
    ///
    /// # Errors
    /// If the clock cannot be read or the map cannot be written.
    pub fn beat(&mut self) -> Result<()> {
        let pulse = Pulse {
            followed_ns: since_boot()?,
        };
        self.pulse
            .set(0, pulse, 0)
            .context("cannot note that the policy is true to the host")
    }
}

/// The time since boot, suspend included, in nanoseconds.
fn since_boot() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).context("cannot read the clock")?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}
