//! The Landlock domain in which every command is started (landlock(7)). It denies access to processes outside of the
//! fence.
//!
//! The eBPF programs see internet sockets of the cgroup. A process that joins the user and network namespaces of a
//! container of its user has all capabilities there. It can then make a packet socket, which no program sees, and send
//! frames on the container's device, which leads out through a process outside of the fence. Joining a namespace needs
//! its file in /proc, or a pidfd. Both require permission to trace the process (`proc_ns_get_link` in
//! fs/proc/namespaces.c, `validate_nsset` in kernel/nsproxy.c). A process in a domain has no such permission for
//! processes outside of it (`hook_ptrace_access_check` in security/landlock/task.c).
//!
//! A domain must restrict something. This one restricts only the scope of signals (Linux 6.12): a domain that restricts
//! files in any way also forbids mounting, which sandboxes inside the fence need (bwrap, passt).

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use landlock::{CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetError, Scope};
use nix::{errno::Errno, libc};

/// A domain, prepared for the child.
#[derive(Debug)]
pub(super) struct Domain(OwnedFd);

impl Domain {
    /// Makes a domain; `None` if the kernel does not support it: before Linux 6.12, or if Landlock is not an active
    /// security module.
    ///
    /// # Errors
    /// If the kernel supports such domains but making one fails.
    pub(super) fn new() -> Result<Option<Self>> {
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .scope(Scope::Signal)
            .and_then(|ruleset| ruleset.create());
        match ruleset {
            Err(RulesetError::Scope(_)) => Ok(None),
            made => {
                let made: Option<OwnedFd> = made.context("cannot make a Landlock domain")?.into();
                Ok(made.map(Self))
            }
        }
    }

    /// The descriptor of the domain.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Puts this thread, and the processes that it starts, into the domain. Makes only one system call. Needs
    /// `no_new_privs` or `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// The errors of landlock_restrict_self(2).
    pub(super) fn enter(&self) -> nix::Result<()> {
        // SAFETY: the arguments are numbers.
        let entered =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        Errno::result(entered).map(drop)
    }
}
