//! With `--keep`: the supervisor goes on in the background, in a session of its own, until the fence is empty.

use anyhow::{Context as _, Result};
use nix::unistd::{chdir, setsid};
use tokio::time::{MissedTickBehavior, interval_at};

use super::{
    Supervisor, TICK, devices::DeviceWatch, emptied::Emptied, names::Names, timer::Overdue,
};
use crate::{
    base::{beat, console, memory},
    launch::{front::WatchedFront, signals::Received},
};

/// What a supervisor that may go on in the background needs.
#[derive(Debug)]
pub struct Staying {
    /// The process that the caller waits for.
    pub front: WatchedFront,
    /// Whether refusals were shown on standard error.
    pub was_shown: bool,
}

impl Staying {
    /// Waits until the front is gone; for ever without one. Cancel-safe.
    pub(super) async fn front_gone(staying: Option<&Self>) {
        match staying {
            Some(staying) => staying.front.gone().await,
            None => std::future::pending().await,
        }
    }

    /// Moves this process to a session of its own, without the caller's terminal, pipes and directory. Then ends the front
    /// with a status; `None` if it is gone.
    pub(super) fn detach(self, fence: &str, status: Option<u8>) {
        let shown = match self.was_shown {
            true => format!("; `qfence-user logs -f {fence}` shows its refusals from now on"),
            false => String::new(),
        };
        let remains = match status {
            Some(_) => format!(
                "processes remain in the fence {fence}; end them with `qfence-user rm {fence}`"
            ),
            None => {
                format!("the process that the caller waits for is gone; the fence {fence} remains")
            }
        };
        console::notify(format_args!(
            "{remains}; process {} supervises it in the background{shown}",
            std::process::id()
        ));
        // It is no leader of a process group, because it is a child of the front.
        let detached = setsid()
            .context("cannot make a session for the supervisor")
            .and_then(|_| chdir("/").context("cannot change to the root directory"))
            .and_then(|()| console::release());
        if let Err(error) = detached {
            console::notify(format_args!("error: {error:#}"));
        }
        if let Some(status) = status {
            self.front.end(status);
        }
    }
}

impl Supervisor<'_> {
    /// Supervises the fence until it has no processes, or a signal ends the supervisor. If the fence ends with the
    /// supervisor, the signal is sent to its processes instead. Returns whether the processes were
    /// ended because of damage.
    ///
    /// # Errors
    /// If the fence or signals cannot be watched. Then nothing supervises the fence.
    pub(super) async fn go_on(&mut self) -> Result<bool> {
        self.integrity.forget_command();
        memory::return_unused();
        let mut emptied = Emptied::watch(self.cgroup.directory())?;
        let mut ended_for_damage = false;
        let mut overdue = Overdue::default();
        let mut tick = interval_at(beat::next(TICK), TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.cgroup.is_populated()? {
            tokio::select! {
                received = self.signals.next() => match received.context("cannot read signals")? {
                    Received::PassOn(signal) | Received::Shared(signal) => {
                        if self.dead_man.is_none() {
                            return Ok(ended_for_damage);
                        }
                        // There is no command any more to which it could be passed on.
                        self.cgroup.signal(signal)?;
                    }
                    Received::Reopen => self.auditor.reopen(),
                    Received::Child => self.reap(&[]),
                    // There is no job any more.
                    Received::Stop { .. } => {}
                },
                () = self.policy.changed() => self.policy.keep_up(&mut self.messages).await,
                () = DeviceWatch::changed(self.devices.as_mut()) => {
                    ended_for_damage |= self.look_at_devices(None).await;
                }
                () = Names::changed(self.names.as_mut()) => if let Some(names) = &mut self.names {
                    names.adopt_nameservers(&self.messages).await;
                },
                changed = emptied.changed() => changed?,
                _ = tick.tick() => {
                    ended_for_damage |= self.ends_for_damage(None);
                    ended_for_damage |= self.look_at_devices(None).await;
                    self.reap(&[]);
                    self.policy.tick(&mut self.messages).await;
                    if let Some(names) = &mut self.names {
                        names.tick(&self.messages);
                    }
                    let taken_back = overdue.look(&self.fence, self.policy.policy());
                    self.messages.report(taken_back);
                }
            }
        }
        Ok(ended_for_damage)
    }
}
