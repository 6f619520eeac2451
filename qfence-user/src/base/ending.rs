//! Watches a command that is ending: when to report that it takes long, and when to give it up.

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

/// How long a command may take to end before that is reported.
const PATIENCE: Duration = Duration::from_secs(10);

/// The report on a command that takes long to end, and the reaction of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndState {
    /// The supervisor continues to wait.
    WaitOn(String),
    /// The command has ended with this status, although other threads or a tracer still keep its process.
    Ended(ExitStatus, String),
    /// The supervisor stops waiting.
    GiveUp(String),
}

/// The time between two looks at the command.
const PERIOD: Duration = Duration::from_secs(1);

/// A thread that watches a command until this is dropped.
///
/// It is a thread because reading the state of a process can take seconds or block for ever. A helper process
/// (`process/helper.rs`) does the reading.
#[derive(Debug)]
pub struct EndWatch {
    states: Receiver<EndState>,
    /// Dropping it ends the thread.
    _alive: Sender<()>,
}

impl EndWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
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
            .context("cannot start the thread that watches the command")?;
        Ok(Self {
            states,
            _alive: alive,
        })
    }

    /// The next report, if there is one.
    #[must_use]
    pub fn state(&self) -> Option<EndState> {
        self.states.try_recv().ok()
    }
}

/// The state of a command's end.
#[derive(Debug)]
struct CommandEnd {
    command: Pid,
    /// When it was first seen to be ending, and whether by SIGKILL.
    since: Option<(Instant, bool)>,
    told: bool,
    /// Whether it was reported that the state cannot be read any more.
    has_given_up: bool,
}

impl CommandEnd {
    /// Starts with a command that nobody has waited for.
    #[must_use]
    fn new(command: Pid) -> Self {
        Self {
            command,
            since: None,
            told: false,
            has_given_up: false,
        }
    }

    /// Looks at the command, and returns a report if one is due. Called about once per [`PERIOD`].
    fn look(&mut self, looks: &mut Looks) -> Option<EndState> {
        let pid = self.command.as_raw();
        let ending = match looks.ending(pid) {
            Ok(ending) => ending,
            // A failed read may be temporary: the next look can succeed.
            Err(error) => {
                let is_new = looks.has_given_up() && !mem::replace(&mut self.has_given_up, true);
                return is_new.then(|| {
                    EndState::WaitOn(format!(
                        "error: cannot find out any more whether the command, process {pid}, is ending: {error:#}; waiting for it"
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
                    "the command has ended ({status}), but its process remains: {}",
                    keepers()
                ),
            )),
            ProcessEnd::Kept(None) => Some(EndState::GiveUp(format!(
                "error: the command has ended, but its status cannot be read: {}",
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

    /// Whether it has been ending in this way for [`PATIENCE`].
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
        // The first thread has ended, others have not.
        assert!(command_end.is_overdue(Some(ProcessEnd::Kept(None)), at(10)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(11)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(20)));
        assert!(command_end.is_overdue(Some(ProcessEnd::Killed), at(21)));
        assert!(!command_end.is_overdue(None, at(22)));
        assert!(!command_end.is_overdue(Some(ProcessEnd::Killed), at(23)));
        assert_eq!(command_end.look(&mut Looks::here()), None);
    }
}
