//! The descriptors qfence was started with.
//!
//! A socket that was made outside the fence stays outside: the kernel's hooks go by the socket's
//! cgroup, which is that of its maker.

use std::{fs, io, os::fd::RawFd};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname},
    unistd::close,
};

/// The first descriptor after standard input, output and error.
pub(crate) const FIRST: RawFd = 3;

/// Closes every descriptor that was inherited, but for the first three and `preserved` after them.
///
/// To be called before anything is opened.
///
/// # Errors
/// If one that is to be preserved is not open, or the list of them cannot be read.
pub fn close_all_but(preserved: u16) -> Result<()> {
    let kept = FIRST + RawFd::from(preserved);
    for fd in FIRST..kept {
        // Not looked up in the list: the descriptor through which that is made is in it as well.
        ensure!(
            fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok(),
            "descriptor {fd} is not open, and --preserve-fds {preserved} asks for it"
        );
    }
    let open = list().context("cannot list the open descriptors")?;
    for fd in open.into_iter().filter(|fd| *fd >= kept) {
        // The one through which they were listed is closed by now.
        match close(fd) {
            Ok(()) | Err(Errno::EBADF) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot close descriptor {fd}"));
            }
        }
    }
    Ok(())
}

/// Closes the preserved descriptors in this process, once the command has them: a pipe must end
/// when the command is done with it.
pub fn close_preserved(preserved: u16) {
    for fd in FIRST..FIRST + RawFd::from(preserved) {
        // They were open at the start, and nothing here has closed them since.
        let _ = close(fd);
    }
}

/// Those of the descriptors that the command will have which are internet sockets.
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
