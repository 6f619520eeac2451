//! Network namespaces that only this process refers to, by descriptors. The kernel removes them when the process ends,
//! for any reason.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic, thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, kept by a descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// Makes a network namespace, without entering it.
    ///
    /// # Errors
    /// If the kernel cannot make it.
    pub fn new() -> Result<Self> {
        on_thread(Self::enter_new)
    }

    /// Makes a network namespace and moves this thread into it. Threads and children that it starts later are in it,
    /// too.
    ///
    /// # Errors
    /// If the kernel cannot make it.
    pub fn enter_new() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)
            .context("cannot make a network namespace (CONFIG_NET_NS, and CAP_SYS_ADMIN)")?;
        let path = "/proc/thread-self/ns/net";
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        Ok(Self { fd: file.into() })
    }

    /// Runs a closure in the namespace, on a new thread. Sockets that it opens stay in the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered; the error of the closure.
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

/// Runs a closure on a new thread and waits for it. A thread cannot leave the namespaces that it has entered.
///
/// # Errors
/// If the closure fails.
pub fn on_thread<T: Send>(closure: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(closure).join())
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}
