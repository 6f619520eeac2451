//! Supervises a fence that is attached to a cgroup of others: keeps the policy up to date and checks the fence for damage,
//! until the cgroup is gone, another process has removed the fence, or a signal ends the supervisor.

use std::{future::pending, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, raise};
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::{TICK, devices::DeviceWatch, emptied::Emptied, timer::Overdue};
use crate::{
    base::{beat, clock::since_boot, message_queue::MessageQueue},
    fence::{
        guard::Fence,
        integrity::{Integrity, OnDamage},
    },
    launch::{
        child::reap_all_but,
        signals::{Received, Signals},
    },
    record::auditor::{Auditor, Ended},
    supervise::follower::Follower,
};

/// How often, and how many times, to look for the end of a place that has become empty.
const BRISK: Duration = Duration::from_millis(10);
const SOON: usize = 200;

/// Why a fence of this kind is not supervised any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The cgroup was removed.
    PlaceGone {
        /// When it was last seen, in nanoseconds since boot.
        seen: u64,
    },
    /// Another process has removed the fence.
    Removed,
    /// A signal to this process.
    Signal(Signal),
}

/// The supervisor of such a fence.
pub struct Attached<'a> {
    /// The policy in force.
    pub policy: Follower,
    /// The signals of this process.
    pub signals: Signals,
    /// The thread that reads the attempts.
    pub auditor: Auditor,
    /// The fence.
    pub fence: &'a Fence,
    /// The parts of the fence that are checked for damage.
    pub integrity: Integrity,
    /// The queue for error messages, so that printing them does not block.
    pub messages: MessageQueue,
    /// Watches its network devices.
    pub devices: Option<DeviceWatch<'a>>,
}

impl Attached<'_> {
    /// Runs until the end. All attempts until then are logged. Returns the reason, and the counts of the record.
    ///
    /// # Errors
    /// If signals cannot be read. Other errors are reported, and tried again.
    pub async fn run(mut self) -> Result<(End, Ended)> {
        let mut overdue = Overdue::default();
        let mut seen = since_boot()?;
        // If the place is gone already, that is noticed below.
        let mut emptied = Emptied::watch(self.fence.cgroup().directory()).ok();
        // How often to look soon for the end of the place: it is removed after it has become empty.
        let mut soon = 0;
        let mut tick = interval_at(beat::next(TICK), TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = loop {
            tokio::select! {
                received = self.signals.next() => match received.context("cannot read signals")? {
                    Received::PassOn(signal) | Received::Shared(signal) => break End::Signal(signal),
                    Received::Stop { .. } => self.stop().await,
                    Received::Reopen => self.auditor.reopen(),
                    // A process that takes back rules whose time is over, for example.
                    Received::Child => reap_all_but(&[]),
                },
                () = self.policy.changed() => self.policy.keep_up(&mut self.messages).await,
                () = DeviceWatch::changed(self.devices.as_mut()) => self.look_at_devices().await,
                changed = changed(emptied.as_mut()) => {
                    if self.is_place_gone(&mut seen) {
                        break End::PlaceGone { seen };
                    }
                    soon = SOON;
                    if let Err(error) = changed {
                        self.messages.notify(format_args!("error: {error:#}"));
                        emptied = None;
                    }
                }
                () = sleep(BRISK), if soon > 0 => {
                    soon -= 1;
                    if self.is_place_gone(&mut seen) {
                        break End::PlaceGone { seen };
                    }
                }
                _ = tick.tick() => {
                    self.look_at_devices().await;
                    if let Some(end) = self.look(&mut seen) {
                        break end;
                    }
                    self.policy.tick(&mut self.messages).await;
                    let taken_back = overdue.look(self.fence.name(), self.policy.policy());
                    self.messages.report(taken_back);
                }
            }
        };
        if let Some(devices) = &mut self.devices {
            devices.drain(&self.messages);
        }
        Ok((end, self.auditor.finish()?))
    }

    /// Whether the cgroup is gone. If not, notes when it was seen.
    fn is_place_gone(&self, seen: &mut u64) -> bool {
        let now = since_boot();
        if !self.fence.has_place() {
            return true;
        }
        *seen = now.unwrap_or(*seen);
        false
    }

    /// Looks at the network devices. What happens to them is reported.
    async fn look_at_devices(&mut self) {
        if let Some(devices) = &mut self.devices {
            devices.look(self.policy.kernel(), &self.messages).await;
        }
    }

    /// Looks whether the fence still exists, and reports damage. Notes when its place was seen.
    fn look(&mut self, seen: &mut u64) -> Option<End> {
        if self.is_place_gone(seen) {
            return Some(End::PlaceGone { seen: *seen });
        }
        match self.fence.is_registered() {
            Ok(true) => {}
            Ok(false) => return Some(End::Removed),
            Err(error) => self.messages.notify(format_args!("error: {error:#}")),
        }
        let maps = self.policy.kernel().maps();
        if self.integrity.is_damaged(maps) {
            // Another process may just be removing it.
            if matches!(self.fence.is_registered_now(), Ok(false)) {
                return Some(End::Removed);
            }
            let (fence, messages) = (self.fence.name(), &self.messages);
            self.integrity
                .report(maps, fence, OnDamage::Report, messages);
        }
        None
    }

    /// Stops this process, as a key in the terminal asks for. Nothing follows the host meanwhile.
    async fn stop(&mut self) {
        self.messages.notify(
            "stopped: until qfence continues, the fence does not follow this host's addresses",
        );
        self.messages.flush();
        // It cannot fail.
        let _ = raise(Signal::SIGSTOP);
        self.policy.take_over(&mut self.messages).await;
    }
}

/// Waits for a change of the place; for ever without a watch. Cancel-safe.
async fn changed(emptied: Option<&mut Emptied>) -> Result<()> {
    match emptied {
        Some(emptied) => emptied.changed().await,
        None => pending().await,
    }
}
