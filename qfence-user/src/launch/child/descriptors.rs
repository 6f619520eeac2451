//! Closes descriptors of the parent in the child immediately, instead of at exec. A copy of a descriptor would keep its
//! lock: the mark of a supervisor, the lock of the record's reader, or the lock on all fences.

use std::{io, os::fd::RawFd};

use nix::{
    errno::Errno,
    libc,
    sys::resource::{Resource, getrlimit},
};

/// If close_range(2) is refused, descriptors up to this number are closed. A new descriptor always gets the lowest free
/// number.
const MOST: RawFd = 1 << 16;

/// Closes all descriptors from `first` on, except those in `kept`, which is in ascending order. Uses system calls only.
///
/// # Errors
/// The errors of getrlimit(2), if close_range(2) is refused.
pub(super) fn close_all_but(first: RawFd, kept: &[RawFd]) -> io::Result<()> {
    let mut from = first;
    for fd in kept.iter().copied().filter(|fd| *fd >= first) {
        close_range(from, fd)?;
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

/// Lets exec keep a descriptor. Uses system calls only.
///
/// # Errors
/// The errors of fcntl(2).
pub(super) fn keep(fd: RawFd) -> io::Result<()> {
    // SAFETY: the arguments are numbers, and the descriptor belongs to this process.
    let kept = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    Errno::result(kept)?;
    Ok(())
}

/// Closes the descriptors from `from` to `end` - 1.
fn close_range(from: RawFd, end: RawFd) -> io::Result<()> {
    if from >= end {
        return Ok(());
    }
    // SAFETY: the arguments are numbers. The closed descriptors belong to values of the parent, which are not dropped
    // in this process.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, from, end - 1, 0) };
    if closed == 0 {
        return Ok(());
    }
    // A container's system call filter may not know close_range(2).
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let end = end.min(RawFd::try_from(limit).unwrap_or(MOST)).min(MOST);
    for fd in from..end {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
    Errno::clear();
    Ok(())
}
