//! The second layer of a fence with network devices: puts it back if somebody removed it, and takes its drops to the record.

use std::{mem, sync::mpsc::Sender};

use anyhow::Context as _;

use crate::{
    base::message_queue::MessageQueue,
    kernel::local_in::{Drained, Membership},
    supervise::recurring_error::RecurringError,
};

/// Watches the second layer.
pub(super) struct SecondLayer {
    /// The fence in it.
    pub(super) membership: Membership,
    drops: Sender<Drained>,
    draining: RecurringError,
    looking: RecurringError,
    is_whole: bool,
}

impl SecondLayer {
    /// Watches one that is whole. `drops` takes what it drops.
    pub(super) fn new(membership: Membership, drops: Sender<Drained>) -> Self {
        Self {
            membership,
            drops,
            draining: RecurringError::default(),
            looking: RecurringError::default(),
            is_whole: true,
        }
    }

    /// Puts back what was removed, and reports it. Returns whether it is newly found that this is impossible.
    pub(super) fn look(&mut self, messages: &MessageQueue) -> bool {
        let whole = self.membership.is_whole();
        let whole = whole.context("error: it is unknown whether the second layer is whole");
        let mended = "the second layer is looked after again";
        match self.looking.report(whole, mended, messages) {
            None => return false,
            Some(true) => {
                if !mem::replace(&mut self.is_whole, true) {
                    messages
                        .notify("the second layer of the fence's network devices is whole again");
                }
                return false;
            }
            Some(false) => {}
        }
        match self.membership.mend() {
            Ok(()) => {
                self.is_whole = true;
                messages.notify(
                    "the second layer of the fence's network devices was removed, and is put back",
                );
                false
            }
            Err(error) => {
                let is_new = mem::replace(&mut self.is_whole, false);
                if is_new {
                    messages.notify(format_args!(
                        "error: the second layer of the fence's network devices was removed, and cannot be put back: packets \
                         that the host's rules send to itself are NOT FENCED: {error:#}; end the fence"
                    ));
                }
                is_new
            }
        }
    }

    /// Takes what was dropped since the last time to the record.
    pub(super) fn drain(&mut self, messages: &MessageQueue) {
        let drained = self.membership.drain();
        let drained = drained.context("error: what the second layer drops is not on the record");
        let mended = "what the second layer drops is on the record again";
        if let Some(drained) = self.draining.report(drained, mended, messages)
            && drained != Drained::default()
        {
            // The reader may have ended.
            let _ = self.drops.send(drained);
        }
    }
}
