//! System calls without a destination that open a way to the host or out of the fence. The hidden verb `call` makes
//! them, inside and outside of the fence.

use std::time::Instant;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    actors::Place,
    judge::{End, Trial},
};

/// A system call to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name in the report.
    pub attempt: &'static str,
    /// The arguments of the hidden verb.
    pub words: Vec<String>,
    /// Errors that show that the call was carried out: the kernel returns them only after the action to be stopped.
    pub late: &'static [Errno],
    /// The name of the layer that stops the call, if that is not a hook. Such a layer records nothing.
    pub closure: &'static str,
    /// Whether `exec --verify` makes it.
    pub short: bool,
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Called {
    /// The error, as a number.
    pub errno: Option<i32>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

impl Called {
    /// Makes the call and measures it.
    #[must_use]
    pub fn make<T>(call: impl FnOnce() -> nix::Result<T>) -> Self {
        let start = Instant::now();
        let errno = call().err().map(|errno| errno as i32);
        Self {
            errno,
            ms: start.elapsed().as_secs_f64() * 1000.0,
        }
    }

    /// Converts the result to a trial, with the refusals that were recorded meanwhile.
    #[must_use]
    pub fn trial(self, call: &Call, place: Place, layers: Vec<&'static str>) -> Trial {
        let end = match self.error() {
            None => End::Reached,
            Some(errno) if call.late.contains(&errno) => End::Reached,
            Some(Errno::ENOSYS) => End::Unsupported,
            // The environment refuses the call to everyone, as containers do.
            Some(Errno::EPERM | Errno::EACCES | Errno::ENOSPC) if place == Place::Outside => {
                End::Unprivileged
            }
            Some(_) => End::Nothing,
        };
        self.ended(end, layers)
    }

    /// The error, if there was one.
    pub(super) fn error(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }

    /// Converts the result to a trial with this end.
    pub(super) fn ended(self, end: End, layers: Vec<&'static str>) -> Trial {
        Trial {
            end,
            errno: self.error().map(|errno| format!("{errno:?}")),
            ms: self.ms,
            layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(errno: Option<Errno>, place: Place) -> End {
        let call = Call {
            attempt: "a call",
            words: Vec::new(),
            late: &[Errno::ENOKEY],
            closure: "seccomp",
            short: false,
        };
        let called = Called {
            errno: errno.map(|errno| errno as i32),
            ms: 0.0,
        };
        called.trial(&call, place, Vec::new()).end
    }

    #[test]
    fn what_was_done_is_told_from_what_was_refused() {
        for place in [Place::Outside, Place::Inside, Place::Filtered] {
            assert_eq!(end(None, place), End::Reached);
            assert_eq!(end(Some(Errno::ENOKEY), place), End::Reached);
            assert_eq!(end(Some(Errno::ENOSYS), place), End::Unsupported);
            assert_eq!(end(Some(Errno::EDQUOT), place), End::Nothing);
        }
        assert_eq!(end(Some(Errno::EPERM), Place::Inside), End::Nothing);
        assert_eq!(end(Some(Errno::EPERM), Place::Filtered), End::Nothing);
        assert_eq!(end(Some(Errno::EPERM), Place::Outside), End::Unprivileged);
    }
}
