//! Runs while the command runs: keeps the policy true to the host, logs refusals, passes signals on.

use std::{
    pin::pin,
    process::{Child, ExitStatus},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use aya_log::EbpfLogger;
use nix::{sys::signal::kill, unistd::Pid};
use tokio::{
    io::unix::AsyncFd,
    sync::oneshot,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    follow::{Follower, Update},
    integrity::Integrity,
    job,
    kernel::Counts,
    log::Log,
    record::{Line, Lost},
    refusals::Refusals,
    say::say,
    signals::{Received, Signals},
    traces::{Traces, flush},
};

/// How often lost events are looked for, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);

/// A stop that is over by then was the terminal's, for the whole job: the supervisor was in it.
const STOP_SETTLES: Duration = Duration::from_millis(20);

/// Everything the supervisor looks after.
pub struct Supervisor<'a> {
    /// The policy in force.
    pub policy: Follower,
    /// What reaches this process.
    pub signals: Signals,
    /// Where refusals are written.
    pub log: &'a Log,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// What the fence is made of.
    pub integrity: Integrity,
    /// The traces of the programs, if they are on.
    pub traces: Option<AsyncFd<EbpfLogger<Traces>>>,
}

impl Supervisor<'_> {
    /// Runs until the command has ended, and then calls `end`, which ends what else is in the fence;
    /// the refusals up to there are logged. Returns how it ended, and what was counted.
    ///
    /// # Errors
    /// If the command cannot be waited for. What fails beside that is reported, and tried again.
    pub async fn run(
        mut self,
        refusals: Refusals,
        mut child: Child,
        end: impl FnOnce(),
    ) -> Result<(ExitStatus, Counts)> {
        let command = Pid::from_raw(i32::try_from(child.id()).context("an odd process id")?);
        let log = self.log;
        let (stop, stopped) = oneshot::channel();
        let mut pump = pin!(refusals.pump(log, stopped));
        let mut pumping = true;
        let mut lost = 0;
        // Whether changes are followed, and the policy is up to date.
        let (mut following, mut current) = (true, true);
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
                    Received::Child | Received::Shared => {}
                },
                changed = self.policy.changed(), if following => {
                    following = report(changed).is_some();
                    current = self.update().await;
                }
                done = &mut pump, if pumping => {
                    // It ends before it is told to only if it fails.
                    report(done);
                    pumping = false;
                }
                () = flush(&mut self.traces) => {}
                _ = tick.tick() => {
                    self.report_lost(&mut lost);
                    self.report_damage();
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
        // It waits for this, unless it has failed.
        let _ = stop.send(());
        if pumping {
            // A log that takes no more is found out by what is not in it.
            let _ = log.while_it_moves(&mut pump).await;
        }
        let counts = self.policy.kernel().maps().counts()?;
        if let Some(line) = self.lost(counts, lost) {
            let _ = log.while_it_moves(pin!(log.write(line))).await;
        }
        Ok((ended, counts))
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

    /// Logs how many events were lost beyond `told`.
    fn report_lost(&mut self, told: &mut u64) {
        let Some(counts) = report(self.policy.kernel().maps().counts()) else {
            return;
        };
        // Without room for it now, it is told next time.
        if self
            .lost(counts, *told)
            .is_some_and(|line| self.log.try_write(line))
        {
            *told = counts.lost;
        }
    }

    /// The line that says how many events were lost beyond `told`, if any were.
    fn lost(&self, counts: Counts, told: u64) -> Option<Line> {
        (counts.lost > told).then(|| {
            Line::Lost(Lost {
                time: jiff::Timestamp::now(),
                fence: Arc::clone(&self.fence),
                lost: counts.lost - told,
            })
        })
    }
}

/// Reports an error; the value if there was none.
fn report<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| say(format_args!("{error:#}"))).ok()
}
