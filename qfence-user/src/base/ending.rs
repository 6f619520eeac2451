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

use crate::base::process::{ProcessEnd, looks::Looks};

/// How long a command may take to end without a word.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be said of a command that takes longer, and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndState {
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
pub struct EndWatch {
    states: Receiver<EndState>,
    /// Dropped with this, which ends the thread.
    _alive: Sender<()>,
}

impl EndWatch {
    /// Starts it.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(command: Pid) -> Result<Self> {
        let (found, states) = channel();
        let (alive, end) = channel::<()>();
        thread::Builder::new()
            .name("qfence-ending".into())
            .spawn(move || {
                let mut looks = Looks::default();
                let mut command_end = CommandEnd::new(command);
                while end.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if let Some(state) = command_end.look(&mut looks)
                        && found.send(state).is_err()
                    {
                        break;
                    }
                }
            })
            .context("cannot start the thread that looks at the command")?;
        Ok(Self {
            states,
            _alive: alive,
        })
    }

    /// What there is to say and to do, if it has come to that.
    #[must_use]
    pub fn state(&self) -> Option<EndState> {
        self.states.try_recv().ok()
    }
}

/// The end of a command, as far as it has come.
#[derive(Debug)]
struct CommandEnd {
    command: Pid,
    /// Since when it is known to be ending, and whether that is by SIGKILL.
    since: Option<(Instant, bool)>,
    told: bool,
    /// Whether it was said that there is no telling any more.
    has_given_up: bool,
}

impl CommandEnd {
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
    fn look(&mut self, looks: &mut Looks) -> Option<EndState> {
        let pid = self.command.as_raw();
        let ending = match looks.ending(pid) {
            Ok(ending) => ending,
            // Whoever is kept by a process that is ending is so once: the next look finds how it ends.
            Err(error) => {
                let is_new = looks.has_given_up() && !mem::replace(&mut self.has_given_up, true);
                return is_new.then(|| {
                    EndState::WaitOn(format!(
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
            ProcessEnd::Killed => Some(EndState::GiveUp(format!(
                "error: the command was killed and does not end: {}",
                keepers()
            ))),
            ProcessEnd::Kept(Some(status)) => Some(EndState::Ended(
                status,
                format!(
                    "the command has ended ({status}), and is kept: {}",
                    keepers()
                ),
            )),
            ProcessEnd::Kept(None) => Some(EndState::GiveUp(format!(
                "error: the command has ended, and its status cannot be read: {}",
                keepers()
            ))),
            ProcessEnd::Leaving => (!mem::replace(&mut self.told, true)).then(|| {
                let keepers = keepers();
                EndState::WaitOn(format!(
                    "the command is ending and has not ended: {keepers}; waiting for it"
                ))
            }),
        }
    }

    /// Whether it has been ending like that for long.
    fn is_overdue(&mut self, ending: Option<ProcessEnd>, now: Instant) -> bool {
        let Some(ending) = ending else {
            self.since = None;
            return false;
        };
        let killed = ending == ProcessEnd::Killed;
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
        let mut command_end = CommandEnd::new(Pid::this());
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!command_end.is_overdue(Some(ProcessEnd::Leaving), at(0)));
        // The first thread has ended, and others have not.
        assert!(command_end.is_overdue(Some(ProcessEnd::Kept(None)), at(10)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(11)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(20)));
        assert!(command_end.is_overdue(Some(ProcessEnd::Killed), at(21)));
        assert!(!command_end.is_overdue(None, at(22)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(23)));
        assert_eq!(command_end.look(&mut Looks::here()), None);
    }
}
