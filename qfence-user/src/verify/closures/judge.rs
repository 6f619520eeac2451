//! Judges an attempt by its outcomes without a fence and in one. Pure, but for [`Facts::read`].

use std::fmt;

use anyhow::Result;
use nix::{errno::Errno, libc, sys::signal::Signal};
use serde::{Deserialize, Serialize, Serializer};

use super::promise::{Attempt, Mechanism, Promise};
use crate::{
    launch::{
        child::{Closures, Wanted},
        managers::try_masks,
    },
    verify::judge::Verdict,
};

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It failed with an error, as a number.
    Failed(i32),
    /// A signal ended the process that made it.
    Killed(i32),
}

impl Outcome {
    /// Whether the kernel has refused it.
    fn is_refused(self) -> bool {
        match self {
            Self::Done => false,
            Self::Failed(_) => true,
            // A filter may kill instead of failing the call.
            Self::Killed(signal) => signal == libc::SIGSYS,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(number) => write!(f, "{:?}", Errno::from_raw(*number)),
            Self::Killed(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by {number}"),
            },
        }
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The parts of the closures that depend on the kernel and on the permissions of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether there are Landlock domains of signals (Linux 6.12).
    pub domain: bool,
    /// Whether sockets can be masked.
    pub masks: bool,
}

impl Facts {
    /// Finds them out.
    ///
    /// # Errors
    /// If a Landlock domain cannot be made although the kernel has them.
    pub fn read() -> Result<Self> {
        Ok(Self {
            domain: Closures::new(Wanted::default())?.close_processes(),
            masks: try_masks().is_ok(),
        })
    }

    /// Whether `exec` closes by this mechanism here.
    fn has(self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Domain => self.domain,
            Mechanism::Masks => self.masks,
            Mechanism::MasksAndDomain => self.masks && self.domain,
            // `--strict` starts nothing where one of its closures is lacking.
            Mechanism::Filter | Mechanism::Keyring | Mechanism::Strict(_) => true,
        }
    }

    /// The promise about an attempt, given that of the table.
    fn promise(self, attempt: &Attempt, promise: Promise) -> Promise {
        match promise {
            Promise::Stops if !attempt.mechanism.is_some_and(|it| self.has(it)) => Promise::Open,
            promise => promise,
        }
    }

    /// The verdict on an attempt in a fence without options.
    #[must_use]
    pub fn in_default(self, attempt: &Attempt, without: Outcome, with: Outcome) -> Verdict {
        let promise = self.promise(attempt, attempt.default);
        verdict(promise, attempt.untried, without, with)
    }

    /// The verdict on an attempt in a fence with `--strict`.
    #[must_use]
    pub fn in_strict(self, attempt: &Attempt, without: Outcome, with: Outcome) -> Verdict {
        let promise = self.promise(attempt, attempt.strict);
        verdict(promise, attempt.untried, without, with)
    }
}

/// The verdict on an attempt. `untried` are the errors that it fails with where it cannot be made even without a fence.
fn verdict(promise: Promise, untried: &[Errno], without: Outcome, with: Outcome) -> Verdict {
    let cannot_be = match without {
        Outcome::Failed(number) => untried.contains(&Errno::from_raw(number)),
        _ => false,
    };
    match (promise, without, with) {
        (Promise::Open, _, _) => Verdict::Open,
        (Promise::Stops, _, Outcome::Done) => Verdict::Passed,
        (Promise::Keeps, _, Outcome::Done) => Verdict::Works,
        (Promise::Stops, Outcome::Done, with) if with.is_refused() => Verdict::Stopped,
        _ if cannot_be => Verdict::Untried,
        (Promise::Keeps, _, _) => Verdict::Broken,
        (Promise::Stops, _, _) => Verdict::Unproven,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: Outcome = Outcome::Failed(Errno::EPERM as i32);

    fn of(promise: Promise, without: Outcome, with: Outcome) -> Verdict {
        verdict(promise, &[Errno::ENOSYS], without, with)
    }

    #[test]
    fn a_promise_to_stop_needs_a_control() {
        use Outcome::{Done, Failed, Killed};
        let stops = |without, with| of(Promise::Stops, without, with);
        assert_eq!(stops(Done, REFUSED), Verdict::Stopped);
        assert_eq!(stops(Done, Killed(libc::SIGSYS)), Verdict::Stopped);
        for without in [Done, REFUSED, Failed(Errno::ENOSYS as i32)] {
            assert_eq!(stops(without, Done), Verdict::Passed);
        }
        assert_eq!(stops(REFUSED, REFUSED), Verdict::Unproven);
        // It hung, so an alarm ended it.
        assert_eq!(stops(Done, Killed(libc::SIGALRM)), Verdict::Unproven);
        assert_eq!(stops(Killed(libc::SIGSYS), REFUSED), Verdict::Unproven);
        let absent = Failed(Errno::ENOSYS as i32);
        assert_eq!(stops(absent, REFUSED), Verdict::Untried);
    }

    #[test]
    fn a_promise_to_keep_needs_no_control_unless_it_is_broken() {
        let keeps = |without, with| of(Promise::Keeps, without, with);
        assert_eq!(keeps(REFUSED, Outcome::Done), Verdict::Works);
        assert_eq!(keeps(Outcome::Done, REFUSED), Verdict::Broken);
        assert_eq!(keeps(REFUSED, REFUSED), Verdict::Broken);
        let absent = Outcome::Failed(Errno::ENOSYS as i32);
        assert_eq!(keeps(absent, REFUSED), Verdict::Untried);
    }

    #[test]
    fn nothing_is_promised_by_a_mechanism_that_is_missing() {
        let facts = Facts {
            domain: false,
            masks: true,
        };
        assert!(!facts.has(Mechanism::Domain) && !facts.has(Mechanism::MasksAndDomain));
        assert!(facts.has(Mechanism::Masks) && facts.has(Mechanism::Filter));
        for outcome in [Outcome::Done, REFUSED] {
            assert_eq!(of(Promise::Open, Outcome::Done, outcome), Verdict::Open);
        }
    }

    #[test]
    fn outcomes_are_words() {
        assert_eq!(REFUSED.to_string(), "EPERM");
        assert_eq!(Outcome::Killed(31).to_string(), "killed by SIGSYS");
        assert_eq!(serde_json::to_string(&Outcome::Done).unwrap(), r#""done""#);
    }
}
