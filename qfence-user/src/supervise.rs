//! Runs while the command runs: keeps the policy true to the host, and passes signals on.

use std::{process::ExitStatus, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use nix::sys::signal::kill;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    aside::Aside,
    audit::auditor::{Auditor, Ended},
    child::Child,
    follow::Follower,
    integrity::Integrity,
    job::Job,
    signals::{Received, Signals},
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
    pub aside: Aside,
}

impl Supervisor {
    /// Runs until the command has ended, and then calls `end`, which ends what else is in the fence; what
    /// was tried up to there is logged. Returns how it ended, and what there is to say of the log.
    ///
    /// # Errors
    /// If the command cannot be waited for. What fails beside that is reported, and tried again.
    pub async fn run(
        mut self,
        mut child: Child,
        end: impl FnOnce(),
    ) -> Result<(ExitStatus, Ended)> {
        let command = child.pid();
        let mut job = Job::new(Arc::clone(&self.fence), command);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        // A child that ended before the first signal was read is found here.
        let ended = loop {
            if let Some(ended) = child.try_wait().context("cannot wait for the command")? {
                break ended;
            }
            tokio::select! {
                received = self.signals.next() => match received.context("cannot read signals")? {
                    Received::PassOn(signal) => {
                        // It may have ended just now.
                        let _ = kill(command, signal);
                    }
                    Received::Stop(signal) => {
                        if let Some(signal) = signal {
                            let _ = kill(command, signal);
                        }
                        job.ask_to_stop();
                        self.aside.report(job.look());
                    }
                    Received::Child => {
                        self.aside.report(job.look());
                    }
                    Received::Reopen => self.auditor.reopen(),
                    Received::Shared => {}
                },
                prepared = job.prepared() => {
                    self.aside.report(job.stop(prepared));
                    self.policy.take_over(&mut self.aside).await;
                }
                changed = self.policy.changed() => self.policy.keep_up(changed, &mut self.aside).await,
                _ = tick.tick() => {
                    self.report_damage();
                    self.policy.tick(&mut self.aside).await;
                    self.aside.report(job.look());
                }
            }
        };
        // Whoever follows in this process's place ends first.
        drop(job);

        end();
        Ok((ended, self.auditor.finish()?))
    }

    /// Says what has been taken away from the fence.
    fn report_damage(&mut self) {
        for damage in self.integrity.new_damage(self.policy.kernel()) {
            self.aside.say(format_args!(
                "error: the fence {} is not whole: {damage}; end it with `qfence-user rm {0}`",
                self.fence
            ));
        }
    }
}
