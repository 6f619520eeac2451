//! Makes calls in another network namespace: bpf(2) attaches to devices and netfilter in the namespace of the calling
//! thread.

use std::{io, os::fd::BorrowedFd, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Runs `work` in a network namespace, on a thread of its own; in the caller's for `None`.
///
/// # Errors
/// If the namespace cannot be entered, or `work` fails.
pub(super) fn within<T: Send>(
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

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use nix::sched::unshare;

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
    }
}
