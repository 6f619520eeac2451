//! Supervises a running command: keeps the policy up to date, checks the fence for damage, and passes signals on.
pub mod attached;
pub mod background;
pub mod begin;
pub mod dead_man;
pub mod devices;
mod emptied;
pub mod established;
pub mod follower;
pub mod job;
pub mod leavers;
pub mod names;
pub mod policy_change;
pub mod recurring_error;
pub mod refused;
pub mod stand_in;
mod taken_back;
pub mod timer;
pub mod traces;

use std::{mem, path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{MissedTickBehavior, interval_at};

use self::{
    background::Staying, dead_man::DeadMan, devices::DeviceWatch, names::Names, timer::Overdue,
};
use crate::{
    base::{
        beat,
        ending::{EndState, EndWatch},
        exit, memory,
        message_queue::MessageQueue,
    },
    fence::{
        cgroup::Cgroup,
        guard::KILL_PATIENCE,
        integrity::{Integrity, OnDamage},
    },
    launch::{
        child::{Child, reap_all_but},
        signals::{Received, Signals},
    },
    record::auditor::{Auditor, Ended},
    supervise::{follower::Follower, job::Job, stand_in::Orders},
};

/// The interval of the checks for damage, and of retries.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The supervisor of a fence.
pub struct Supervisor<'a> {
    /// The policy in force.
    pub policy: Follower,
    /// The signals of this process.
    pub signals: Signals,
    /// The thread that reads the attempts.
    pub auditor: Auditor,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// The parts of the fence that are checked for damage.
    pub integrity: Integrity,
    /// The queue for error messages, so that printing them does not block.
    pub messages: MessageQueue,
    /// The reaction to damage.
    pub on_damage: OnDamage,
    /// The cgroup of the command.
    pub cgroup: Cgroup,
    /// The resolv.conf that is followed.
    pub resolv_conf: PathBuf,
    /// The process that ends the fence if this one ends.
    pub dead_man: Option<DeadMan>,
    /// Watches its network devices.
    pub devices: Option<DeviceWatch<'a>>,
    /// Its resolver, if its policy has rules by name.
    pub names: Option<Names>,
}

impl Supervisor<'_> {
    /// Runs until the command has ended. With `staying`, it then hands over the status and goes on in the background as
    /// long as processes remain in the fence. At last it calls `end`, which ends the other processes of the fence. All
    /// attempts until then are logged. Returns the exit status of the command, and the counts of the record. A killed
    /// command that does not end, because it is blocked in the kernel, is abandoned. If the command has ended but
    /// cannot be reaped, its status is read in another way (`ending.rs`). Both are reported.
    ///
    /// # Errors
    /// If the command cannot be waited for, or was ended because of damage. Other errors are reported, and tried again.
    pub async fn run(
        mut self,
        mut child: Child,
        mut staying: Option<Staying>,
        end: impl FnOnce(),
    ) -> Result<(Option<ExitStatus>, Ended)> {
        let command = child.pid();
        let mut job = Job::new(Orders {
            fence: Arc::clone(&self.fence),
            command,
            on_damage: self.on_damage,
            parts: self.integrity.parts().clone(),
            resolv_conf: self.resolv_conf.clone(),
        });
        let mut ended_for_damage = false;
        let mut overdue = Overdue::default();
        // Set when the front is gone although the command runs.
        let mut is_detached = false;
        // Not at the start: a command that ends at once does not wait for it.
        let mut keeps_freed = true;
        let mut tick = interval_at(beat::next(TICK), TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);

        let ending = EndWatch::start(command)?;
        let mut verdict = None;
        // This also finds a child that ended before the first signal was read.
        let ended = loop {
            if let Some(ended) = child.try_wait().context("cannot wait for the command")? {
                break Some(ended);
            }
            match verdict.take() {
                Some(EndState::WaitOn(words)) => self.messages.notify(words),
                Some(EndState::Ended(status, words)) => {
                    self.messages.notify(words);
                    break Some(status);
                }
                Some(EndState::GiveUp(words)) => {
                    self.messages.notify(words);
                    break None;
                }
                None => {}
            }
            tokio::select! {
                received = self.signals.next() => match received.context("cannot read signals")? {
                    Received::PassOn(signal) => {
                        // The command may have ended at this moment.
                        let _ = kill(command, signal);
                    }
                    Received::Stop { signal, shared } => {
                        if !shared || (is_key(signal) && !job.shares_keys()) {
                            let _ = kill(command, signal);
                        }
                        job.ask_to_stop();
                        self.messages.report(job.look());
                    }
                    Received::Child => {
                        self.reap(&job.children());
                        self.messages.report(job.look());
                    }
                    Received::Reopen => self.auditor.reopen(),
                    Received::Shared(signal) => {
                        if is_key(signal) && !job.shares_keys() {
                            let _ = kill(command, signal);
                        }
                    }
                },
                prepared = job.prepared() => {
                    self.messages.report(job.stop(prepared));
                    // The stand-in may have ended the command because of damage.
                    ended_for_damage |= self.ends_for_damage(Some(command));
                    self.policy.take_over(&mut self.messages).await;
                }
                () = self.policy.changed() => self.policy.keep_up(&mut self.messages).await,
                () = DeviceWatch::changed(self.devices.as_mut()) => {
                    ended_for_damage |= self.look_at_devices(Some(command)).await;
                }
                () = Names::changed(self.names.as_mut()) => if let Some(names) = &mut self.names {
                    names.adopt_nameservers(&self.messages).await;
                },
                () = Staying::front_gone(staying.as_ref()) => if let Some(staying) = staying.take() {
                    is_detached = true;
                    staying.detach(&self.fence, None);
                    if self.dead_man.is_some() {
                        self.messages.notify("everything in the fence is ended (--die-with-supervisor)");
                        self.end_all(Some(command));
                    }
                },
                _ = tick.tick() => {
                    if mem::take(&mut keeps_freed) {
                        memory::return_unused();
                    }
                    ended_for_damage |= self.ends_for_damage(Some(command));
                    ended_for_damage |= self.look_at_devices(Some(command)).await;
                    self.reap(&job.children());
                    verdict = ending.state();
                    self.policy.tick(&mut self.messages).await;
                    if let Some(names) = &mut self.names {
                        names.tick(&self.messages);
                    }
                    let taken_back = overdue.look(&self.fence, self.policy.policy());
                    self.messages.report(taken_back);
                    self.messages.report(job.look());
                }
            }
        };
        // The stand-in must end before the fence is removed.
        drop(job);

        let stays = staying.is_some() || is_detached;
        if stays && !ended_for_damage && self.cgroup.is_populated().unwrap_or(false) {
            drop(ending);
            if let Some(staying) = staying {
                let status = ended.map_or(exit::FAILED, exit::of_command);
                staying.detach(&self.fence, Some(status));
            }
            ended_for_damage = self.go_on().await?;
        }
        end();
        if let Some(devices) = &mut self.devices {
            devices.drain(&self.messages);
        }
        let audit = self.auditor.finish()?;
        if ended_for_damage {
            bail!(
                "the fence {} was damaged, so all processes in it were ended (--on-damage kill)",
                self.fence
            );
        }
        Ok((ended, audit))
    }

    /// Reports damage of the fence, and ends the processes in the fence if the user wants that. Returns whether it did.
    fn ends_for_damage(&mut self, command: Option<Pid>) -> bool {
        let (maps, on_damage) = (self.policy.kernel().maps(), self.on_damage);
        let is_damaged = self
            .integrity
            .report(maps, &self.fence, on_damage, &self.messages);
        let ends = is_damaged && on_damage == OnDamage::Kill;
        if ends {
            self.end_all(command);
        }
        ends
    }

    /// Looks at the network devices, and ends the processes in the fence if one is not fenced any more and the user wants
    /// that. Returns whether it did.
    async fn look_at_devices(&mut self, command: Option<Pid>) -> bool {
        let Some(devices) = &mut self.devices else {
            return false;
        };
        let is_damaged = devices.look(self.policy.kernel(), &self.messages).await;
        let ends = is_damaged && self.on_damage == OnDamage::Kill;
        if ends {
            self.end_all(command);
        }
        ends
    }

    /// Reaps ended children, except these and the process that ends the fence, which is replaced if it has ended.
    fn reap(&mut self, kept: &[Pid]) {
        if let Some(dead_man) = &mut self.dead_man {
            let replaced = dead_man.replace_if_ended();
            self.messages.report(replaced);
        }
        let dead_man = self.dead_man.as_ref().map(DeadMan::pid);
        let kept: Vec<Pid> = kept.iter().copied().chain(dead_man).collect();
        reap_all_but(&kept);
    }

    /// Ends all processes in the fence, and the command even if it has left the cgroup, unless it has ended.
    fn end_all(&mut self, command: Option<Pid>) {
        let ended = self.cgroup.kill_all(KILL_PATIENCE);
        self.messages.report(ended);
        if let Some(command) = command {
            // The command may have left the cgroup. It was not reaped yet, so its number was not reused.
            let _ = kill(command, Signal::SIGKILL);
        }
    }
}

/// Whether the terminal sends this signal for a key. A command outside of the job's process group gets these signals
/// from here, because no other process of the job would handle them. It does not get SIGHUP, which it would also not
/// get without a fence: that may be why it has left the group.
fn is_key(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP)
}
