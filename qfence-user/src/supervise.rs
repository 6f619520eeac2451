//! Runs while the command runs: keeps the policy true to the host, and passes signals on.

use std::{process::ExitStatus, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use aya_log::EbpfLogger;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::unix::AsyncFd,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    audit::auditor::{Auditor, Ended},
    cgroup::Cgroup,
    child::Child,
    fence::KILL_PATIENCE,
    follow::{Follower, Update},
    integrity::{Integrity, OnDamage},
    job,
    say::say,
    signals::{Received, Signals},
    traces::{Traces, flush},
};

/// How often damage is looked for, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);

/// A stop that is over by then was the terminal's, for the whole job: the supervisor was in it.
const STOP_SETTLES: Duration = Duration::from_millis(20);

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
    /// What is done when something of that is gone.
    pub on_damage: OnDamage,
    /// The cgroup that the command runs in.
    pub cgroup: Cgroup,
    /// The traces of the programs, if they are on.
    pub traces: Option<AsyncFd<EbpfLogger<Traces>>>,
}

impl Supervisor {
    /// Runs until the command has ended, and then calls `end`, which ends what else is in the fence; what
    /// was tried up to there is logged. Returns how it ended, and what there is to say of the log.
    ///
    /// # Errors
    /// If the command cannot be waited for, or was ended because the fence was not whole any more. What fails
    /// beside that is reported, and tried again.
    pub async fn run(
        mut self,
        mut child: Child,
        end: impl FnOnce(),
    ) -> Result<(ExitStatus, Ended)> {
        let command = child.pid();
        // Whether changes are followed, and the policy is up to date.
        let (mut following, mut current) = (true, true);
        let mut ended_for_damage = false;
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
                    Received::Child if job::is_stopped(command) => {
                        sleep(STOP_SETTLES).await;
                        if job::is_stopped(command) {
                            job::stop_along(command)?;
                        }
                    }
                    Received::Reopen => self.auditor.reopen(),
                    Received::Child | Received::Shared => {}
                },
                changed = self.policy.changed(), if following => {
                    following = report(changed).is_some();
                    current = self.update().await;
                }
                () = flush(&mut self.traces) => {}
                _ = tick.tick() => {
                    if self.report_damage() && self.on_damage == OnDamage::Kill {
                        ended_for_damage = true;
                        self.end_all(command);
                    }
                    if !following {
                        following = report(self.policy.follow_again()).is_some();
                        current = false;
                    }
                    // Others compile by what they find in the store, too: that it is true to the host
                    // stays the affair of this process.
                    if !current || self.policy.was_changed() {
                        current = self.update().await;
                    }
                }
            }
        };

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

    /// Brings the policy up to date; whether that worked.
    async fn update(&mut self) -> bool {
        let updated = self.policy.update().await;
        let updated = report(updated.context(
            "the fence does not follow the host's addresses and nameservers; trying again",
        ));
        updated.is_some_and(|update| update != Update::Busy)
    }

    /// Says what has been taken away from the fence; whether there is something.
    fn report_damage(&mut self) -> bool {
        let found = self.integrity.look(self.policy.kernel());
        let what_follows = match self.on_damage {
            OnDamage::Report => format!("end it with `qfence-user rm {}`", self.fence),
            OnDamage::Kill => "what runs in it is ended".into(),
        };
        for damage in &found.damage {
            say(format_args!(
                "error: the fence {} is not whole: {damage}; {what_follows}",
                self.fence
            ));
        }
        for why in &found.unknown {
            say(format_args!(
                "error: cannot tell whether the fence {} is whole: {why}; trying again",
                self.fence
            ));
        }
        !found.damage.is_empty()
    }

    /// Ends what runs in the fence, and the command wherever it is.
    fn end_all(&self, command: Pid) {
        if let Err(error) = self.cgroup.kill_all(KILL_PATIENCE) {
            say(format_args!("error: {error:#}"));
        }
        // It may have left the cgroup. Nobody has waited for it yet, so that the number is still its own.
        let _ = kill(command, Signal::SIGKILL);
    }
}

/// Reports an error; the value if there was none.
fn report<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| say(format_args!("{error:#}"))).ok()
}
