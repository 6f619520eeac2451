//! Asks for /proc/PID/stat of those who try something, in a helper process, as that can last for ever
//! (`process/helper.rs`). After an answer that did not come nobody is looked up for a while: attempts come faster than
//! seconds go by.

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

/// How long nobody is looked up after one that did not answer.
const PAUSE: Duration = Duration::from_secs(30);

/// Where the files are read.
pub(super) struct Stats(RefCell<Asked>);

/// A process cannot be looked up now, whether it is there or not. Why was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown;

struct Asked {
    apart: Apart,
    not_before: Option<Instant>,
}

impl Stats {
    /// Reads them in a helper process, which is started by [`Stats::prepare`], or when it is needed.
    pub(super) fn new(proc: &Path) -> Self {
        Self::by(Apart::new(proc))
    }

    /// Reads them in this process: of what is no process of a fence.
    #[cfg(test)]
    pub(super) fn here(proc: &Path) -> Self {
        Self::by(Apart::here(proc))
    }

    /// From now on nobody is looked up for a while, as after an answer that did not come.
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

    /// Starts the helper. What fails is said when it is needed.
    pub(super) fn prepare(&self) {
        self.0.borrow_mut().apart.prepare();
    }

    /// That of a process; `None` if there is none.
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
                "error: cannot read what /proc says of process {pid}: {error:#}: attempts are on record without the \
                 executables of those who make them for {PAUSE:?}"
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
