//! Runs while the command runs: keeps the policy true to the host, and passes signals on.
pub mod begin;
pub mod established;
pub mod follower;
pub mod job;
pub mod policy_change;
pub mod recurring_error;
pub mod stand_in;
pub mod traces;

use std::{process::ExitStatus, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    base::{
        ending::{EndState, EndWatch},
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

/// How often damage is looked for, and what failed is tried again.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// Everything the supervisor looks after.
pub struct Supervisor {
    /// The policy in force.
    pub policy: Follower,
    /// What reaches this process.
    pub signals: Signals,
    /// What reads the attempts.
    pub auditor: Auditor,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// What the fence is made of.
    pub integrity: Integrity,
    /// What says what fails, without being waited for.
    pub messages: MessageQueue,
    /// What is done when something of that is gone.
    pub on_damage: OnDamage,
    /// The cgroup that the command runs in.
    pub cgroup: Cgroup,
}

impl Supervisor {
    /// Runs until the command has ended, and then calls `end`, which ends what else is in the fence; what
    /// was tried up to there is logged. Returns how it ended, and what there is to say of the log. A command that
    /// was killed and does not end, as it is stuck in the kernel, is given up; of one that has ended and is kept, the
    /// status is read elsewhere (`ending.rs`). Both is said.
    ///
    /// # Errors
    /// If the command cannot be waited for, or was ended because the fence was not whole any more. What fails
    /// beside that is reported, and tried again.
    pub async fn run(
        mut self,
        mut child: Child,
        end: impl FnOnce(),
    ) -> Result<(Option<ExitStatus>, Ended)> {
        let command = child.pid();
        let mut job = Job::new(Orders {
            fence: Arc::clone(&self.fence),
            command,
            on_damage: self.on_damage,
            parts: self.integrity.parts().clone(),
        });
        let mut ended_for_damage = false;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        let ending = EndWatch::start(command)?;
        let mut verdict = None;
        // A child that ended before the first signal was read is found here.
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
                        // It may have ended just now.
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
                        reap_all_but(&job.children());
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
                    // The stand-in may have ended the command for it.
                    ended_for_damage |= self.ends_for_damage(command);
                    self.policy.take_over(&mut self.messages).await;
                }
                () = self.policy.changed() => self.policy.keep_up(&mut self.messages).await,
                _ = tick.tick() => {
                    ended_for_damage |= self.ends_for_damage(command);
                    reap_all_but(&job.children());
                    verdict = ending.state();
                    self.policy.tick(&mut self.messages).await;
                    self.messages.report(job.look());
                }
            }
        };
        // Whoever follows in this process's place ends first.
        drop(job);

        end();
        let audit = self.auditor.finish()?;
        if ended_for_damage {
            bail!(
                "the fence {} was not whole any more, so what ran in it was ended (--on-damage kill)",
                self.fence
            );
        }
        Ok((ended, audit))
    }

    /// Says what has been taken away from the fence; ends what runs in it if that is to be. Whether that was done.
    fn ends_for_damage(&mut self, command: Pid) -> bool {
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

    /// Ends what runs in the fence, and the command wherever it is.
    fn end_all(&mut self, command: Pid) {
        let ended = self.cgroup.kill_all(KILL_PATIENCE);
        self.messages.report(ended);
        // It may have left the cgroup. Nobody has waited for it yet, so that the number is still its own.
        let _ = kill(command, Signal::SIGKILL);
    }
}

/// Whether a terminal sends it for a key. A command that has left the job's process group gets these from here, as
/// nothing else of the job would take notice. A hang-up it survives, as without a fence: that may be why it left.
fn is_key(signal: Signal) -> bool {
    matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP)
}
