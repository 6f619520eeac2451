//! State of a fence as a whole, which its programs share with the processes that follow or change its policy: see
//! [`qfence_common::pulse`].

use anyhow::{Context, Result};
use aya::maps::MapError;
use nix::errno::Errno;
use qfence_common::{Change, Marks, Peer, Pulse, abi, peer::Heard};

use super::maps::Maps;
use crate::base::clock::since_boot;

/// `BPF_EXIST`: only replaces an existing element.
const EXIST: u64 = 2;

const NO_CHANGE: &str = "cannot read when the policy was changed";

impl Maps {
    /// Records that the policy was changed; called after the change. From then on, replies to requests that the old
    /// policy allowed do not make their sender a peer. Existing peers are forgotten: when one sends again, the new
    /// policy decides whether it may be answered.
    ///
    /// # Errors
    /// If the clock or a map cannot be read or written. Peers are forgotten as far as possible.
    pub fn note_change(&mut self) -> Result<()> {
        let before = self.change()?;
        self.set_change(Change {
            changed_ns: since_boot()?,
            ..before
        })?;
        self.forget_peers()
    }

    /// Sets whether the programs judge each packet of TCP connections that the fence opened, or only the packets that
    /// open one.
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

    /// Whether the programs judge each packet of TCP connections that the fence opened.
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
            .context("cannot record that the policy was changed")
    }

    /// The marks that the programs have set.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn marks(&self) -> Result<Marks> {
        self.marks
            .get(&0, 0)
            .context("cannot read the marks of the fence")
    }

    /// Forgets all peers, and the times at which they sent.
    ///
    /// # Errors
    /// If the map cannot be read or written. Peers are forgotten as far as possible.
    fn forget_peers(&mut self) -> Result<()> {
        let context = "cannot forget the peers";
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
                // The peer was evicted meanwhile.
                Err(MapError::SyscallError(error))
                    if error.io_error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                Err(error) => return Err(error).context(context),
            }
        }
        Ok(())
    }

    /// Records that the policy matches the host now. The process that follows the host's addresses does this once a
    /// second: see [`qfence_common::pulse`].
    ///
    /// # Errors
    /// If the clock cannot be read or the map cannot be written.
    pub fn beat(&mut self) -> Result<()> {
        let pulse = Pulse {
            followed_ns: since_boot()?,
        };
        self.pulse
            .set(0, pulse, 0)
            .context("cannot record that the policy matches the host")
    }
}
