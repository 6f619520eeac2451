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
//! A domain must restrict something. By default it restricts only the scope of signals (Linux 6.12): a domain that
//! restricts files in any way also forbids mounting, which sandboxes inside the fence need (bwrap, passt). With `--strict`
//! it also restricts files ([`crate::launch::files`]) and the scope of abstract Unix sockets.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use landlock::{
    Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, Scope,
};
use nix::{errno::Errno, libc};

use crate::launch::files::{self, Files};

/// A domain, prepared for the child.
#[derive(Debug)]
pub(super) struct Domain(OwnedFd);

impl Domain {
    /// Makes a domain with these scopes that restricts these files, if any. `None` if the kernel does not support it:
    /// before Linux 6.12, or if Landlock is not an active security module.
    ///
    /// # Errors
    /// If the kernel supports such domains but making one fails.
    pub(super) fn new(scopes: BitFlags<Scope>, files: Option<&Files>) -> Result<Option<Self>> {
        let doing = "cannot make a Landlock domain";
        let hard = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let scoped = hard.scope(scopes).and_then(|ruleset| match files {
            Some(_) => ruleset.handle_access(AccessFs::from_all(files::RIGHTS)),
            None => Ok(ruleset),
        });
        let mut made = match scoped.and_then(|ruleset| ruleset.create()) {
            Err(RulesetError::Scope(_) | RulesetError::HandleAccesses(_)) => return Ok(None),
            made => made.context(doing)?,
        };
        for rule in files.map(Files::rules).unwrap_or_default() {
            made = made.add_rule(rule.landlock()).context(doing)?;
        }
        let made: Option<OwnedFd> = made.into();
        Ok(made.map(Self))
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

/// Whether the kernel lets a domain restrict all rights on files that concern this program.
pub(super) fn restricts_files() -> bool {
    let hard = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let made = hard.handle_access(AccessFs::from_all(files::RIGHTS));
    made.and_then(|ruleset| ruleset.create()).is_ok()
}
