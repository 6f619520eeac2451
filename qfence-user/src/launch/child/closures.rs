//! Closures: ways out of the fence that no hook covers, and that are closed for the command.

use std::os::fd::RawFd;

use anyhow::Result;

use super::{
    domain::Domain,
    filter::{Filter, Strictness},
};

/// The closures of a command, prepared for the child.
#[derive(Debug)]
pub struct Closures {
    /// The system call filter.
    pub(super) filter: Filter,
    /// The Landlock domain; `None` if the kernel does not support it.
    pub(super) domain: Option<Domain>,
}

impl Closures {
    /// Prepares the closures that this kernel supports. With `join`, processes outside of the fence remain accessible.
    ///
    /// # Errors
    /// As [`Domain::new`].
    pub fn new(strictness: Strictness, join: bool) -> Result<Self> {
        Ok(Self {
            filter: Filter::new(strictness),
            domain: if join { None } else { Domain::new()? },
        })
    }

    /// The descriptor that the child needs to apply them, if any.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.domain.as_ref().map(Domain::descriptor)
    }

    /// Whether the command has no access to processes outside of the fence.
    #[must_use]
    pub fn close_processes(&self) -> bool {
        self.domain.is_some()
    }
}
