//! The front: with `--keep`, the process that the caller waits for. The supervisor is its child, so that it can go on
//! when the command has ended and the caller gets the status.
//!
//! The front is in the process group of the job. It passes on signals that were sent to it alone, stops when the
//! supervisor stops, and ends with the supervisor, or when the supervisor hands over a status.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use tokio::io::unix::AsyncFd;

use super::{
    dispositions::Reignored,
    signals::{ignored, passed_on},
    stops::{has_gone_on, take_stop},
};
use crate::base::{exit, inherited, readable::readable};

/// The two processes.
pub enum Side {
    /// This process is the front. The supervisor has ended, or goes on in the background; the front exits with this status.
    Front(u8),
    /// This process is the supervisor.
    Supervisor(Front),
}

/// The front, from the side of the supervisor.
#[derive(Debug)]
pub struct Front {
    link: UnixStream,
}

/// Makes the supervisor a child of this process, which becomes the front and closes the `preserved` descriptors of the
/// command. Returns in both.
///
/// # Errors
/// If this process has other threads, the supervisor cannot be made, or the front cannot receive signals.
pub fn split(preserved: u16) -> Result<Side> {
    let threads = fs::read_dir("/proc/self/task").context("cannot list the threads")?;
    ensure!(threads.count() == 1, "a process with threads cannot fork");
    let (link, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
    let ignored = ignored().context("cannot read the ignored signals")?;
    // Before the fork, so that no signal is lost between it and the loop.
    let received = passed_on(ignored);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&received), Some(&mut before))
        .context("cannot block signals")?;
    // SAFETY: this process has one thread, so the child has all of the process.
    match unsafe { fork() }.context("cannot fork for the supervisor")? {
        ForkResult::Child => {
            drop(link);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)
                .context("cannot restore the signals")?;
            Ok(Side::Supervisor(Front { link: theirs }))
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            inherited::close_preserved(preserved);
            // The kernel reports no status of a child to a process that ignores SIGCHLD.
            Reignored::take_back(ignored)?;
            wait(child, link, &received).map(Side::Front)
        }
    }
}

/// Passes signals on to the supervisor until it has ended or handed over a status.
fn wait(supervisor: Pid, mut link: UnixStream, received: &SigSet) -> Result<u8> {
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(received, flags).context("cannot make a signalfd")?;
    let mut is_linked = true;
    loop {
        let mut polled = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(link.as_fd(), PollFlags::POLLIN),
        ];
        let count = if is_linked { 2 } else { 1 };
        match poll(&mut polled[..count], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the supervisor"),
        }
        if is_linked && polled[1].any().unwrap_or(false) {
            let mut status = [0];
            if matches!(link.read(&mut status), Ok(1)) {
                return Ok(status[0]);
            }
            // The supervisor is ending. SIGCHLD follows.
            is_linked = false;
        }
        while let Some(info) = signals.read_signal().context("cannot read signals")? {
            // The terminal sends its signals to the whole process group, which includes the supervisor (sigaction(2)).
            let is_for_this_process = info.ssi_code <= 0;
            let signal = i32::try_from(info.ssi_signo).map(Signal::try_from);
            if let (true, Ok(Ok(signal))) = (is_for_this_process, signal)
                && signal != Signal::SIGCHLD
            {
                // The supervisor may have ended at this moment.
                let _ = kill(supervisor, signal);
            }
        }
        if take_stop(supervisor) {
            raise(Signal::SIGSTOP).context("cannot stop together with the supervisor")?;
            // A shell continues the whole group. A second SIGCONT would undo a later stop.
            if !has_gone_on(supervisor) {
                let _ = kill(supervisor, Signal::SIGCONT);
            }
        }
        match waitpid(supervisor, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => {
                return Ok(u8::try_from(status).unwrap_or(exit::FAILED));
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(exit::of_signal(signal)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the supervisor"),
        }
    }
}

impl Front {
    /// Starts to watch the front. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If its link cannot be polled.
    pub fn watch(self) -> Result<WatchedFront> {
        self.link
            .set_nonblocking(true)
            .and_then(|()| readable(self.link))
            .map(|link| WatchedFront { link })
            .context("cannot poll the link to the front")
    }
}

/// The front, watched by the event loop of the supervisor.
#[derive(Debug)]
pub struct WatchedFront {
    link: AsyncFd<UnixStream>,
}

impl WatchedFront {
    /// Waits until the front has ended, for instance because it was killed. Cancel-safe.
    pub async fn gone(&self) {
        // The front writes nothing, so it is readable only at its end. An error cannot happen within a runtime.
        let _ = self.link.readable().await;
    }

    /// Ends the front with a status.
    pub fn end(self, status: u8) {
        // The front may be gone.
        let _ = self.link.into_inner().write_all(&[status]);
    }
}
