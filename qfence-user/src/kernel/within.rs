//! Makes calls in another network namespace: bpf(2) attaches to devices and netfilter in the namespace of the calling
//! thread.

use std::{
    fs::File,
    io, iter,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::base::files::entries;

/// `SO_NETNS_COOKIE` in asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Runs `work` in a network namespace, on a thread of its own; in the caller's for `None`.
///
/// # Errors
/// If the namespace cannot be entered, or `work` fails.
pub fn within<T: Send>(
    netns: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let Some(netns) = netns else {
        return work();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
            work()
        });
        let thread = thread.context("cannot make a thread")?;
        thread
            .join()
            .map_err(|_| anyhow!("a thread in the network namespace has panicked"))?
    })
}

/// Runs `work` in a network namespace of its own, which ends with it. It has a loopback device only.
///
/// # Errors
/// If there is no such namespace, or `work` fails.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace for the trial")?;
            work()
        });
        let thread = thread.context("cannot make a thread")?;
        thread
            .join()
            .map_err(|_| anyhow!("the trial in a network namespace has panicked"))?
    })
}

/// The number of a network namespace, or of the caller's for `None`. It is unique as long as the namespace exists.
///
/// # Errors
/// If it cannot be read.
pub(super) fn number_of(netns: Option<BorrowedFd<'_>>) -> io::Result<u64> {
    let number = match netns {
        Some(netns) => rustix::fs::fstat(netns)?.st_ino,
        None => rustix::fs::stat("/proc/thread-self/ns/net")?.st_ino,
    };
    Ok(number)
}

/// The cookie of a network namespace, or of the caller's for `None`, by which programs know it (Linux 5.14).
///
/// # Errors
/// ENOPROTOOPT if the kernel does not show it.
pub fn cookie_of(netns: Option<BorrowedFd<'_>>) -> Result<u64> {
    within(netns, || {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let mut cookie = 0_u64;
        let mut length = libc::socklen_t::try_from(size_of_val(&cookie))?;
        // SAFETY: the kernel writes at most `length` bytes, which the number has.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        Errno::result(result)?;
        Ok(cookie)
    })
}

/// Finds a network namespace by its number: the caller's, one that has a name, or that of a process. `None` if there is
/// none, and then nothing has it open but descriptors and mounts elsewhere.
pub(super) fn find(number: u64) -> Option<File> {
    let own = iter::once(PathBuf::from("/proc/thread-self/ns/net"));
    let names = entries(Path::new("/run/netns")).unwrap_or_default();
    let named = names.into_iter().map(|entry| entry.path());
    let processes = entries(Path::new("/proc")).unwrap_or_default();
    let processes = processes.into_iter().map(|entry| entry.path());
    own.chain(named)
        .chain(processes.map(|process| process.join("ns/net")))
        .filter_map(|path| File::open(path).ok())
        .find(|file| number_of(Some(file.as_fd())).is_ok_and(|found| found == number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_in_the_namespace_and_nothing_else_is() {
        let fresh = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let fresh = fresh.join().unwrap();
        let before = number_of(None).unwrap();
        let there = number_of(Some(fresh.as_fd())).unwrap();
        let inside = within(Some(fresh.as_fd()), || Ok(number_of(None)?)).unwrap();
        assert_eq!(inside, there);
        assert_ne!(there, before);
        assert_eq!(number_of(None).unwrap(), before);
        assert_eq!(within(None, || Ok(number_of(None)?)).unwrap(), before);
        let found = find(before).unwrap();
        assert_eq!(number_of(Some(found.as_fd())).unwrap(), before);
        // No process is in it.
        assert!(find(there).is_none());
    }
}
