//! What each kind of fence promises about an attempt, and by what.

use std::fmt;

use nix::errno::Errno;
use serde::{Serialize, Serializer};

use super::{attempts::Tried, victims::Victims};
use crate::confinement::Closure;

/// What a fence promises about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// It fails.
    Stops,
    /// It works as without a fence.
    Keeps,
    /// Nothing.
    Open,
}

/// What closes a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// The Landlock domain of every command.
    Domain,
    /// The mount namespace in which sockets of managers are masked.
    Masks,
    /// Both together.
    MasksAndDomain,
    /// The system call filter of every command.
    Filter,
    /// The session keyring of every command of another user.
    Keyring,
    /// A closure of `--strict`.
    Strict(Closure),
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain => f.write_str("landlock"),
            Self::Masks => f.write_str("mounts"),
            Self::MasksAndDomain => f.write_str("mounts+landlock"),
            Self::Filter => f.write_str("seccomp"),
            Self::Keyring => f.write_str("keyring"),
            Self::Strict(closure) => write!(f, "--strict={closure}"),
        }
    }
}

impl Serialize for Mechanism {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its name in the report.
    pub name: &'static str,
    /// Makes it, in a process of its own.
    pub make: fn(&Victims) -> Tried,
    /// The promise of a fence without options.
    pub default: Promise,
    /// The promise of a fence with `--strict`.
    pub strict: Promise,
    /// What closes it; `None` for an attempt that no fence closes.
    pub mechanism: Option<Mechanism>,
    /// The errors that it fails with on hosts where nobody can make it. Any other failure without a fence shows that the
    /// attempt is wrong.
    pub untried: &'static [Errno],
}

impl Attempt {
    /// With the errors of hosts where it cannot be made.
    pub(super) const fn unless(mut self, untried: &'static [Errno]) -> Self {
        self.untried = untried;
        self
    }

    /// No fence promises anything.
    pub(super) const fn always_open(mut self) -> Self {
        self.strict = Promise::Open;
        self.mechanism = None;
        self
    }

    /// It works by default; `--strict` promises nothing.
    pub(super) const fn kept_by_default(mut self) -> Self {
        self.mechanism = None;
        self.default = Promise::Keeps;
        self.strict = Promise::Open;
        self
    }
}
