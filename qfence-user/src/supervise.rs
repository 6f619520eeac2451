//! Runs while the command runs: keeps the policy true to the host, and passes signals on.

use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use aya_log::EbpfLogger;
use nix::sys::signal::kill;
use tokio::{
    io::unix::AsyncFd,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    audit::auditor::{Auditor, Ended},
    child::Child,
    follow::{Follower, Update},
    integrity::Integrity,
    job, process,
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
    /// The traces of the programs, if they are on.
    pub traces: Option<AsyncFd<EbpfLogger<Traces>>>,
}

/// How long a command that was killed gets to end.
const KILLED_PATIENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Runs until the command has ended, and then calls `end`, which ends what else is in the fence; what
    /// was tried up to there is logged. Returns how it ended, and what there is to say of the log. A command that
    /// was killed and does not end, as it is stuck in the kernel, is given up.
    ///
    /// # Errors
    /// If the command cannot be waited for. What fails beside that is reported, and tried again.
    pub async fn run(
        mut self,
        mut child: Child,
        end: impl FnOnce(),
    ) -> Result<(Option<ExitStatus>, Ended)> {
        let command = child.pid();
        // Whether changes are followed, and the policy is up to date.
        let (mut following, mut current) = (true, true);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        // Since when the command is known to have been killed.
        let mut killed: Option<Instant> = None;
        // A child that ended before the first signal was read is found here.
        let ended = loop {
            if let Some(ended) = child.try_wait().context("cannot wait for the command")? {
                break Some(ended);
            }
            if killed.is_some_and(|killed| killed.elapsed() >= KILLED_PATIENCE) {
                break None;
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
                    self.report_damage();
                    if process::is_killed(command.as_raw()) {
                        killed.get_or_insert_with(Instant::now);
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
        Ok((ended, self.auditor.finish()?))
    }

    /// Brings the policy up to date; whether that worked.
    async fn update(&mut self) -> bool {
        let updated = self.policy.update().await;
        let updated = report(updated.context(
            "the fence does not follow the host's addresses and nameservers; trying again",
        ));
        updated.is_some_and(|update| update != Update::Busy)
    }

    /// Says what has been taken away from the fence.
    fn report_damage(&mut self) {
        for damage in self.integrity.new_damage(self.policy.kernel()) {
            say(format_args!(
                "error: the fence {} is not whole: {damage}; end it with `qfence-user rm {0}`",
                self.fence
            ));
        }
    }
}

/// Reports an error; the value if there was none.
fn report<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| say(format_args!("{error:#}"))).ok()
}
