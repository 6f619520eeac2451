//! The Landlock domain that every command is started in (landlock(7)): processes outside of it are out of reach.
//!
//! The cgroup's programs see sockets of the internet. A process that joins the user and network namespaces of a container
//! of its user's has all capabilities there: a packet socket, which no program sees, puts frames on that container's device,
//! whose way out runs outside of the fence. To join a namespace takes its file in /proc, or a process's descriptor,
//! and both ask whether the process may be traced (`proc_ns_get_link` in fs/proc/namespaces.c, `validate_nsset` in
//! kernel/nsproxy.c); to whom is in a domain, processes outside of it may not (`hook_ptrace_access_check` in
//! security/landlock/task.c).
//!
//! A domain has to restrict something. This one is of the scope of signals and nothing else (Linux 6.12), as a domain
//! that restricts files in any way also forbids to mount, which sandboxes within the fence do (bwrap, passt).

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use landlock::{CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetError, Scope};
use nix::{errno::Errno, libc};

/// A domain, ready to be entered.
#[derive(Debug)]
pub(super) struct Domain(OwnedFd);

impl Domain {
    /// Makes one; `None` where the kernel has none of this kind: before Linux 6.12, or where Landlock is not among its
    /// security modules.
    ///
    /// # Errors
    /// If the kernel has them, and makes none.
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

    /// Its descriptor, which it is entered by.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Has this thread, and all that it starts, be in the domain from now on. It makes a system call and nothing else. It
    /// takes `no_new_privs` or `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// What landlock_restrict_self(2) fails with.
    pub(super) fn enter(&self) -> nix::Result<()> {
        // SAFETY: numbers alone.
        let entered =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        Errno::result(entered).map(drop)
    }
}
