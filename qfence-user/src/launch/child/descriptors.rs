//! Closes what the child has of its parent's, which the command is not to have: at once, rather than when that is
//! executed. A copy of a descriptor holds what it is of: the mark that a supervisor lives, the lock of the record's
//! reader, a lock on all fences.

use std::{io, os::fd::RawFd};

use nix::{
    errno::Errno,
    libc,
    sys::resource::{Resource, getrlimit},
};

/// Where close_range(2) is refused, descriptors are closed up to here. Each has the lowest number that was free.
const MOST: RawFd = 1 << 16;

/// Closes all descriptors from `first` on, but for those in `kept`. It makes system calls alone.
///
/// # Errors
/// What getrlimit(2) fails with, where close_range(2) is refused.
pub(super) fn close_all_but<const N: usize>(first: RawFd, mut kept: [RawFd; N]) -> io::Result<()> {
    kept.sort_unstable();
    let mut from = first;
    for fd in kept.into_iter().filter(|fd| *fd >= first) {
        close_range(from, fd)?;
        from = fd + 1;
    }
    close_range(from, RawFd::MAX)
}

/// Closes the descriptors from `from` on that are below `end`.
fn close_range(from: RawFd, end: RawFd) -> io::Result<()> {
    if from >= end {
        return Ok(());
    }
    // SAFETY: numbers alone. What is closed belongs to values of the parent's, which are not dropped in this process.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, from, end - 1, 0) };
    if closed == 0 {
        return Ok(());
    }
    // Filters of system calls in containers may not know it.
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let end = end.min(RawFd::try_from(limit).unwrap_or(MOST)).min(MOST);
    for fd in from..end {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
    Errno::clear();
    Ok(())
}
