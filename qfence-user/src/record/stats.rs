//! Reads /proc/PID/stat of processes that make attempts. The read can block forever, so a helper process makes it
//! (`process/helper.rs`). After a read without answer, no process is looked up for a while, because attempts can arrive
//! faster than lookups time out.

use std::{
    cell::RefCell,
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use super::proc::{self, Stat};
use crate::base::{
    console::notify,
    process::helper::{Apart, Question},
};

/// The pause after a read without answer.
const PAUSE: Duration = Duration::from_secs(30);

/// Reads the state of processes.
pub(super) struct Stats(RefCell<Asked>);

/// The state of a process cannot be read now; the process may or may not exist. The reason was reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

struct Asked {
    apart: Apart,
    not_before: Option<Instant>,
}

impl Stats {
    /// Reads the files in a helper process. [`Stats::prepare`] starts it; otherwise it is started when needed.
    pub(super) fn new(proc: &Path) -> Self {
        Self::by(Apart::new(proc))
    }

    /// Reads the files in this process. Only for processes outside of fences.
    #[cfg(test)]
    pub(super) fn here(proc: &Path) -> Self {
        Self::by(Apart::here(proc))
    }

    /// Starts the pause, as after a read without answer.
    #[cfg(test)]
    pub(super) fn pause(&self) {
        self.0.borrow_mut().not_before = Some(Instant::now() + PAUSE);
    }

    fn by(apart: Apart) -> Self {
        Self(RefCell::new(Asked {
            apart,
            not_before: None,
        }))
    }

    /// Starts the helper process. An error is reported later, when the helper is needed.
    pub(super) fn prepare(&self) {
        self.0.borrow_mut().apart.prepare();
    }

    /// The state of a process; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Unknown`].
    pub(super) fn of(&self, pid: u32) -> Result<Option<Stat>, Unknown> {
        self.0.borrow_mut().of(pid)
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stats")
    }
}

impl Asked {
    fn of(&mut self, pid: u32) -> Result<Option<Stat>, Unknown> {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return Err(Unknown);
        }
        let answer = self.apart.ask(Question::Stat(pid)).map_err(|error| {
            notify(format_args!(
                "error: cannot read the state of process {pid} from /proc: {error:#}; attempts are recorded without \
                 executables for {PAUSE:?}"
            ));
            self.not_before = Some(Instant::now() + PAUSE);
            Unknown
        })?;
        if answer.is_empty() {
            return Ok(None);
        }
        proc::parse(&answer).map(Some).ok_or(Unknown)
    }
}
