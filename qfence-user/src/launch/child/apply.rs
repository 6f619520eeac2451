//! Applies the closures in the child, as the last steps before exec, and proves each of them. Uses system calls only.

use std::{io, os::fd::AsFd as _};

use nix::{
    errno::Errno,
    libc,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        statfs::statfs,
        statvfs::FsFlags,
    },
};

use super::{closures::Closures, decoy::Decoy, seccomp, steps::Step};

/// Takes away what only other programs of the user need. To be called as root.
///
/// # Errors
/// The errors of the system calls.
pub(super) fn take_rights(
    closures: &Closures,
    tell: &impl Fn(Step) -> nix::Result<usize>,
) -> io::Result<()> {
    let Some(rights) = closures.rights else {
        return Ok(());
    };
    tell(Step::TakeRights)?;
    if rights.own_ipc {
        // SAFETY: the argument is a number; this process has one thread.
        Errno::result(unsafe { libc::unshare(libc::CLONE_NEWIPC) })?;
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    match getrlimit(Resource::RLIMIT_CORE)? {
        (0, 0) => Ok(()),
        _ => Err(Errno::EPERM.into()),
    }
}

/// Applies all other closures. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// The errors of the system calls; [`NOT_CLOSED`] if a closure has no effect.
pub(super) fn close(
    closures: &Closures,
    tell: &impl Fn(Step) -> nix::Result<usize>,
) -> io::Result<()> {
    if let Some(domain) = &closures.domain {
        tell(Step::EnterDomain)?;
        let decoy = match closures.proves_processes {
            true => Some(Decoy::start()?),
            false => None,
        };
        let witness = closures.files.as_ref().map(|files| files.witness());
        if let Some(witness) = witness {
            // Otherwise its refusal would prove nothing.
            check(witness.can_open()?)?;
        }
        domain.enter()?;
        if let Some(witness) = witness {
            tell(Step::ProveFiles)?;
            check(!witness.can_open()?)?;
            check(statfs(c"/")?.flags().contains(FsFlags::ST_RDONLY))?;
        }
        if let Some(decoy) = decoy {
            tell(Step::ProveProcesses)?;
            check(!decoy.can_be_signalled()?)?;
            decoy.end()?;
        }
    }
    // Last: the filters may forbid the other steps.
    tell(Step::InstallFilter)?;
    seccomp::install(closures.filter.code())?;
    check(refuses_terminal_input())?;
    for program in &closures.refusals.answered {
        seccomp::install_crates(program)?;
    }
    if closures.proves_processes {
        tell(Step::ProveProcesses)?;
        check(refuses_limits()?)?;
    }
    if let Some(reported) = &closures.refusals.reported {
        tell(Step::ProveFilter)?;
        check(refuses_keys())?;
        tell(Step::Report)?;
        let listener = seccomp::install_reporting(reported)?;
        if let Some(reports) = &closures.reports {
            seccomp::send(reports.as_fd(), listener.as_fd())?;
        }
    }
    Ok(())
}

/// The error of a closure that has no effect. No step before exec fails with it otherwise.
pub(super) const NOT_CLOSED: Errno = Errno::ENOTRECOVERABLE;

fn check(holds: bool) -> nix::Result<()> {
    if holds { Ok(()) } else { Err(NOT_CLOSED) }
}

/// Whether the first filter refuses to type into a terminal. There is no terminal: without the filter the kernel would
/// say that (EBADF).
fn refuses_terminal_input() -> bool {
    // SAFETY: the descriptor is none.
    let typed = unsafe { libc::ioctl(-1, libc::TIOCSTI, std::ptr::null::<u8>()) };
    Errno::result(typed) == Err(Errno::EPERM)
}

/// Whether the filter of `syscalls` refuses keyctl(2). Without the filter the kernel would not know the operation
/// (EOPNOTSUPP).
fn refuses_keys() -> bool {
    // SAFETY: the arguments are numbers.
    let asked = unsafe { libc::syscall(libc::SYS_keyctl, u32::MAX, 0, 0, 0, 0) };
    Errno::result(asked) == Err(Errno::EPERM)
}

/// Whether the filter of `processes` refuses prlimit(2) on a process by its number. Without the filter this process could
/// read its own limits by its number.
fn refuses_limits() -> nix::Result<bool> {
    let none = std::ptr::null::<libc::rlimit>();
    let own = nix::unistd::getpid().as_raw();
    // SAFETY: without limits to set and a place for them, nothing is changed or written.
    let asked = unsafe { libc::syscall(libc::SYS_prlimit64, own, libc::RLIMIT_CPU, none, none) };
    match Errno::result(asked) {
        Ok(_) => Ok(false),
        Err(Errno::EPERM) => Ok(true),
        Err(errno) => Err(errno),
    }
}
