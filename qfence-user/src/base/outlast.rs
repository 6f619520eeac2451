//! A command that is ending and cannot be waited for yet: how long that goes on without a word, and what follows.

use std::{
    mem,
    process::ExitStatus,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::base::process::{Ending, looks::Looks};

/// How long a command may take to end without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be said of a command that takes longer, and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is waited for.
    WaitOn(String),
    /// It has ended with this status, whoever keeps it.
    Ended(ExitStatus, String),
    /// It is given up.
    GiveUp(String),
}

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// A thread that looks at a command as long as this lives.
///
/// A thread, since the state of a process can take seconds to be read, or for ever: that is done by a helper process
/// (`process/helper.rs`), which this asks.
#[derive(Debug)]
pub struct Watch {
    verdicts: Receiver<Verdict>,
    /// Dropped with this, which ends the thread.
    _alive: Sender<()>,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(command: Pid) -> Result<Self> {
        let (found, verdicts) = channel();
        let (alive, end) = channel::<()>();
        thread::Builder::new()
            .name("qfence-outlast".into())
            .spawn(move || {
                let mut looks = Looks::default();
                let mut outlast = Outlast::new(command);
                while end.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if let Some(verdict) = outlast.look(&mut looks)
                        && found.send(verdict).is_err()
                    {
                        break;
                    }
                }
            })
            .context("cannot start the thread that looks at the command")?;
        Ok(Self {
            verdicts,
            _alive: alive,
        })
    }

    /// What there is to say and to do, if it has come to that.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdicts.try_recv().ok()
    }
}

/// The end of a command, as far as it has come.
#[derive(Debug)]
struct Outlast {
    command: Pid,
    /// Since when it is known to be ending, and whether that is by SIGKILL.
    since: Option<(Instant, bool)>,
    told: bool,
    /// Whether it was said that there is no telling any more.
    has_given_up: bool,
}

impl Outlast {
    /// That of a command, which nobody has waited for.
    #[must_use]
    fn new(command: Pid) -> Self {
        Self {
            command,
            since: None,
            told: false,
            has_given_up: false,
        }
    }

    /// What is to be said and done now; to be called every now and then.
    fn look(&mut self, looks: &mut Looks) -> Option<Verdict> {
        let pid = self.command.as_raw();
        let ending = match looks.ending(pid) {
            Ok(ending) => ending,
            // Whoever is kept by a process that is ending is so once: the next look finds how it ends.
            Err(error) => {
                let is_new = looks.has_given_up() && !mem::replace(&mut self.has_given_up, true);
                return is_new.then(|| {
                    Verdict::WaitOn(format!(
                        "error: cannot tell any more whether the command, process {pid}, ends: {error:#}; waiting for it"
                    ))
                });
            }
        };
        if !self.is_overdue(ending, Instant::now()) {
            return None;
        }
        let mut keepers = || looks.describe_keepers(pid);
        match ending? {
            Ending::Killed => Some(Verdict::GiveUp(format!(
                "error: the command was killed and does not end: {}",
                keepers()
            ))),
            Ending::Kept(Some(status)) => Some(Verdict::Ended(
                status,
                format!(
                    "the command has ended ({status}), and is kept: {}",
                    keepers()
                ),
            )),
            Ending::Kept(None) => Some(Verdict::GiveUp(format!(
                "error: the command has ended, and its status cannot be read: {}",
                keepers()
            ))),
            Ending::Leaving => (!mem::replace(&mut self.told, true)).then(|| {
                let keepers = keepers();
                Verdict::WaitOn(format!(
                    "the command is ending and has not ended: {keepers}; waiting for it"
                ))
            }),
        }
    }

    /// Whether it has been ending like that for long.
    fn is_overdue(&mut self, ending: Option<Ending>, now: Instant) -> bool {
        let Some(ending) = ending else {
            self.since = None;
            return false;
        };
        let killed = ending == Ending::Killed;
        let (since, _) = match self.since {
            Some(since) if since.1 == killed => since,
            _ => *self.since.insert((now, killed)),
        };
        now.duration_since(since) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_begins_anew_with_another_end() {
        let mut outlast = Outlast::new(Pid::this());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!outlast.is_overdue(Some(Ending::Leaving), at(0)));
        // The first thread has ended, and others have not.
        assert!(outlast.is_overdue(Some(Ending::Kept(None)), at(10)));
        assert!(!outlast.is_overdue(Some(Ending::Killed), at(11)));
        assert!(!outlast.is_overdue(Some(Ending::Killed), at(20)));
        assert!(outlast.is_overdue(Some(Ending::Killed), at(21)));
        assert!(!outlast.is_overdue(None, at(22)));
        assert!(!outlast.is_overdue(Some(Ending::Killed), at(23)));
        assert_eq!(outlast.look(&mut Looks::here()), None);
    }
}
