//! Closures: ways out of the fence that no hook covers, and that are closed for the command.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result, ensure};
use landlock::Scope;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{domain::Domain, filter::Filter, refusals::Refusals};
use crate::{
    confinement::{Closure, Strict},
    launch::files::Files,
};

/// What is to be closed for a command.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Whether compat calls may set all socket options.
    pub allow_compat_sockopt: bool,
    /// Whether processes outside the fence remain accessible.
    pub allow_processes: bool,
    /// The closures of `--strict`.
    pub strict: Strict,
    /// The files that the command keeps; `None` without the closure `files`.
    pub files: Option<Files>,
    /// Whether abstract Unix sockets made outside the fence are refused.
    pub scope_abstract: bool,
    /// Whether the command keeps the System V shared memory of its user, under the closure `rights`.
    pub keep_shared_memory: bool,
}

/// The closures of a command, prepared for the child.
#[derive(Debug)]
pub struct Closures {
    /// The system call filter.
    pub(super) filter: Filter,
    /// The Landlock domain; `None` if the kernel does not support it.
    pub(super) domain: Option<Domain>,
    /// The system calls that `--strict` refuses.
    pub(super) refusals: Refusals,
    /// The end of a socket by which the child sends the descriptor for reports of refused calls.
    pub(super) reports: Option<OwnedFd>,
    /// The other end, for the supervisor.
    receiver: Option<OwnedFd>,
    /// The files of the command.
    pub(super) files: Option<Files>,
    /// Whether to prove that processes outside are closed.
    pub(super) proves_processes: bool,
    /// Whether to take away rights that only other programs of the user need.
    pub(super) rights: Option<Rights>,
}

/// The part of `rights` that the child takes away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    /// Whether the command gets System V and POSIX queues and shared memory of its own.
    pub(super) own_ipc: bool,
}

impl Closures {
    /// Prepares the closures that this kernel supports.
    ///
    /// # Errors
    /// If the kernel supports them but preparing one fails, or does not support one of `--strict`.
    pub fn new(wanted: Wanted) -> Result<Self> {
        let Wanted { strict, files, .. } = wanted;
        let mut scopes = Scope::Signal.into();
        if wanted.scope_abstract {
            scopes |= Scope::AbstractUnixSocket;
        }
        let needs_domain = files.is_some() || strict.has(Closure::Processes);
        let domain = match wanted.allow_processes {
            true => None,
            false => Domain::new(scopes, files.as_ref())?,
        };
        ensure!(
            domain.is_some() || !needs_domain,
            "--strict: there is no Landlock domain"
        );
        let refusals = Refusals::new(&strict)?;
        let (reports, receiver) = match refusals.reported {
            Some(_) => {
                let (flags, kind) = (SockFlag::SOCK_CLOEXEC, SockType::SeqPacket);
                let pair = socketpair(AddressFamily::Unix, kind, None, flags);
                let (one, other) = pair.context("cannot make a pair of sockets")?;
                (Some(one), Some(other))
            }
            None => (None, None),
        };
        let own_ipc = !wanted.keep_shared_memory;
        Ok(Self {
            filter: Filter::new(wanted.allow_compat_sockopt),
            domain,
            refusals,
            reports,
            receiver,
            proves_processes: strict.has(Closure::Processes),
            rights: strict.has(Closure::Rights).then_some(Rights { own_ipc }),
            files,
        })
    }

    /// Takes the end of the socket at which the descriptor for reports of refused calls arrives.
    pub fn take_receiver(&mut self) -> Option<OwnedFd> {
        self.receiver.take()
    }

    /// The files of the command, if they are closed.
    pub(in crate::launch) fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// The descriptors that the child needs to apply them.
    pub(super) fn descriptors(&self) -> [Option<RawFd>; 3] {
        [
            self.domain.as_ref().map(Domain::descriptor),
            self.files
                .as_ref()
                .map(|files| files.witness().descriptor()),
            self.reports.as_ref().map(|end| end.as_raw_fd()),
        ]
    }

    /// Whether the command has no access to processes outside of the fence.
    #[must_use]
    pub fn close_processes(&self) -> bool {
        self.domain.is_some()
    }
}

/// The closures of `--strict` that this kernel does not support, with the reason.
#[must_use]
pub fn lacking(strict: &Strict) -> Vec<(Closure, &'static str)> {
    let mut lacking = Vec::new();
    let lacks = |scopes| matches!(Domain::new(scopes, None), Ok(None));
    if strict.has(Closure::Processes) && lacks(Scope::Signal.into()) {
        lacking.push((
            Closure::Processes,
            "Landlock's scope of signals, Linux 6.12",
        ));
    }
    if strict.has(Closure::Files) && !super::domain::restricts_files() {
        lacking.push((Closure::Files, "Landlock's rights for devices, Linux 6.10"));
    }
    if strict.has(Closure::Sockets) && lacks(Scope::AbstractUnixSocket.into()) {
        lacking.push((
            Closure::Sockets,
            "Landlock's scope of abstract sockets, Linux 6.12",
        ));
    }
    lacking
}
