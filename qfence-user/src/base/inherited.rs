//! The descriptors that qfence inherited.
//!
//! A socket that was made outside the fence stays outside: the kernel's hooks use the cgroup of the socket, which is
//! that of its maker.

use std::{
    fs, io,
    os::fd::{OwnedFd, RawFd},
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname},
    unistd::close,
};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The first descriptor after standard input, output and error.
pub(crate) const FIRST: RawFd = 3;

/// Closes every inherited descriptor except the first three and the `preserved` ones after them.
///
/// Must be called before anything is opened.
///
/// # Errors
/// If a descriptor to preserve is not open, or the list of descriptors cannot be read.
pub fn close_all_but(preserved: u16) -> Result<()> {
    let kept = FIRST + RawFd::from(preserved);
    for fd in FIRST..kept {
        // Not checked by the list: that has the descriptor through which it is read.
        ensure!(
            fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok(),
            "descriptor {fd} is not open, and --preserve-fds {preserved} asks for it"
        );
    }
    let open = list().context("cannot list the open descriptors")?;
    for fd in open.into_iter().filter(|fd| *fd >= kept) {
        // The descriptor through which the list was read is closed already.
        match close(fd) {
            Ok(()) | Err(Errno::EBADF) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot close descriptor {fd}"));
            }
        }
    }
    Ok(())
}

/// Takes an inherited descriptor over. What this process executes does not inherit it.
///
/// # Errors
/// If it is not open.
pub fn take(fd: RawFd) -> Result<OwnedFd> {
    let context = || format!("descriptor {fd} is not open");
    let own = pidfd_open(getpid(), PidfdFlags::empty()).context("cannot open this process")?;
    let taken = pidfd_getfd(own, fd, PidfdGetfdFlags::empty()).with_context(context)?;
    close(fd).with_context(context)?;
    Ok(taken)
}

/// Closes the preserved descriptors in this process after the command has them, so that a pipe ends when the command
/// closes it.
pub fn close_preserved(preserved: u16) {
    for fd in FIRST..FIRST + RawFd::from(preserved) {
        // They were open at the start, and nothing has closed them since.
        let _ = close(fd);
    }
}

/// The internet sockets among the descriptors that the command inherits.
#[must_use]
pub fn internet_sockets(preserved: u16) -> Vec<RawFd> {
    (0..FIRST + RawFd::from(preserved))
        .filter(|fd| is_internet_socket(*fd))
        .collect()
}

fn is_internet_socket(fd: RawFd) -> bool {
    let Ok(name) = getsockname::<SockaddrStorage>(fd) else {
        return false;
    };
    matches!(
        name.family(),
        Some(AddressFamily::Inet | AddressFamily::Inet6)
    )
}

fn list() -> io::Result<Vec<RawFd>> {
    let mut fds = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        fds.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<RawFd>().ok()),
        );
    }
    Ok(fds)
}
