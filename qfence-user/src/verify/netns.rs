//! Network namespaces that only this process has, by descriptors. They end with it, whichever way it ends.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic, thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, held by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// A new one.
    ///
    /// # Errors
    /// If the kernel makes none.
    pub fn new() -> Result<Self> {
        on_thread(Self::enter_new)
    }

    /// A new one, which this thread, and every thread and child that it starts, is in from here on.
    ///
    /// # Errors
    /// If the kernel makes none.
    pub fn enter_new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace (CONFIG_NET_NS, and CAP_SYS_ADMIN)")?;
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        Ok(Self { fd: file.into() })
    }

    /// Runs a closure inside, on a thread of its own. Sockets that it opens stay inside.
    ///
    /// # Errors
    /// If the namespace cannot be entered; what the closure fails with.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .context("cannot enter a network namespace")?;
            closure()
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRef<Self> for Netns {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Runs a closure on a thread of its own, which ends with it: a thread cannot leave the namespaces that it has entered.
///
/// # Errors
/// If the closure fails.
pub fn on_thread<T: Send>(closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(closure).join())
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}
