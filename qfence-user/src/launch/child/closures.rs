//! What a command is closed off from beside the hooks: ways out that no program on the cgroup sees.

use std::os::fd::RawFd;

use anyhow::Result;

use super::{
    domain::Domain,
    filter::{Filter, Strictness},
};

/// The closures of a command, ready to be put on.
#[derive(Debug)]
pub struct Closures {
    /// Which system calls it can make.
    pub(super) filter: Filter,
    /// Which processes it can reach; `None` where the kernel has no such domains.
    pub(super) domain: Option<Domain>,
}

impl Closures {
    /// Those that this kernel has. With `join` processes outside of the fence can be reached.
    ///
    /// # Errors
    /// As [`Domain::new`].
    pub fn new(strictness: Strictness, join: bool) -> Result<Self> {
        Ok(Self {
            filter: Filter::new(strictness),
            domain: if join { None } else { Domain::new()? },
        })
    }

    /// The descriptor that putting them on takes, if any.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.domain.as_ref().map(Domain::descriptor)
    }

    /// Whether processes outside of the fence are out of reach.
    #[must_use]
    pub fn close_processes(&self) -> bool {
        self.domain.is_some()
    }
}
