//! State of a fence as a whole, which its programs share with the processes that follow or change its policy: see
//! [`qfence_common::pulse`].

use anyhow::{Context, Result};
use qfence_common::{Change, Marks, Pulse};

use super::maps::Maps;
use crate::base::clock::since_boot;

const NO_CHANGE: &str = "cannot read when the policy was changed";

impl Maps {
    /// Records that the policy was changed; called after the change. From then on, replies to requests that the old
    /// policy allowed do not make their sender a peer, and existing peers are not answered: when one sends again, the new
    /// policy decides whether it may be answered.
    ///
    /// # Errors
    /// If the clock or the map cannot be read or written.
    pub fn note_change(&mut self) -> Result<()> {
        let before = self.change()?;
        self.set_change(Change {
            changed_ns: since_boot()?,
            ..before
        })
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

    /// Sets the network namespace that is the fence's home, by its cookie, before a socket of the fence is made.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_home(&mut self, cookie: u64) -> Result<()> {
        let marks = Marks {
            home: cookie,
            ..self.marks()?
        };
        self.marks
            .set(0, marks, 0)
            .context("cannot note the network namespace of the fence")
    }

    /// Notes that sockets of the fence may broadcast: those that were made before it.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn may_broadcast(&mut self) -> Result<()> {
        let marks = Marks {
            broadcasts: 1,
            ..self.marks()?
        };
        self.marks
            .set(0, marks, 0)
            .context("cannot note that sockets of the fence may broadcast")
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
