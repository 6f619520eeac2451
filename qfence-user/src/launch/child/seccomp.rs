//! Installs filters of system calls, and sends the descriptor by which a process receives reports of one.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    libc::{self, sock_filter, sock_fprog},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Applies a filter to this thread, and to the processes that it starts. Makes only one system call. Needs
/// `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// ENOSYS or EINVAL if the kernel has no such filters, EACCES without the privilege.
pub(super) fn install(code: &[sock_filter]) -> nix::Result<()> {
    apply(code.len(), code.as_ptr(), 0).map(drop)
}

/// The same for a filter that the crate has made.
///
/// # Errors
/// As [`install`].
pub(super) fn install_crates(code: &[seccompiler::sock_filter]) -> nix::Result<()> {
    apply(code.len(), code.as_ptr().cast(), 0).map(drop)
}

/// The same for a filter that reports calls. Returns the descriptor by which the reports are received.
///
/// # Errors
/// As [`install`]; EBUSY if a filter of this process reports calls already.
pub(super) fn install_reporting(code: &[seccompiler::sock_filter]) -> nix::Result<OwnedFd> {
    let made = apply(
        code.len(),
        code.as_ptr().cast(),
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    )?;
    let made = RawFd::try_from(made).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has made the descriptor for this process. It is closed at exec.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

fn apply(length: usize, code: *const sock_filter, flags: libc::c_ulong) -> nix::Result<i64> {
    let program = sock_fprog {
        len: u16::try_from(length).map_err(|_| Errno::E2BIG)?,
        filter: code.cast_mut(),
    };
    // Without SPEC_ALLOW, kernels before Linux 5.16 treat a process with a filter as one that runs untrusted code, and
    // slow it down (`seccomp_assign_mode` in kernel/seccomp.c). SAFETY: the kernel reads as many instructions as there
    // are, and copies them.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | flags,
            &raw const program,
        )
    };
    Errno::result(installed)
}

/// Sends a descriptor to the other end of a socket. Does not allocate.
///
/// # Errors
/// The errors of sendmsg(2).
pub(super) fn send(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> nix::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::ENOBUFS);
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&[0])],
        &mut message,
        SendFlags::empty(),
    );
    sent.map(drop)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Makes a copy of this process with only this thread; returns 0 in the copy. The C library's function may take locks.
///
/// # Errors
/// The errors of clone(2).
pub(super) fn fork() -> nix::Result<libc::pid_t> {
    // SAFETY: without flags to share memory this is a fork; the other arguments are unused.
    let made = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    let made = Errno::result(made)?;
    libc::pid_t::try_from(made).map_err(|_| Errno::EOVERFLOW)
}

/// The advice for an error of [`install`].
pub(super) fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSYS | Errno::EINVAL => {
            "this kernel has no system call filters, without which the fence does not cover 32-bit calls: \
             use one with CONFIG_SECCOMP_FILTER"
        }
        Errno::EACCES => {
            "with --allow-new-privs this needs CAP_SYS_ADMIN: remove the option, or give qfence the capability"
        }
        _ => "qfence itself may run under a filter that forbids this, for instance in a container",
    }
}
