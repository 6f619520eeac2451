//! A child of this process.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::process::ExitStatusExt},
    process::ExitStatus,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::WaitPidFlag,
    },
    unistd::Pid,
};

use crate::launch::{
    child_status::{self, ChildStatus, let_go},
    stops::is_stopped,
};

/// The interval of the checks whether a child that makes no progress is stopped, in milliseconds.
const LOOK_MS: u16 = 100;

/// The progress of a child.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The child has executed the command or ended, after it wrote these bytes.
    Done(Vec<u8>),
    /// The child was killed before that, because the start was cancelled.
    Killed,
}

/// Reads the progress of a child, until it has executed the command or ended, or the start is cancelled.
///
/// A terminal that stops its job (Ctrl-Z) stops the child, but not this process, which would then wait forever, and so
/// would the shell. So a stopped child is continued. Later stops, of the command, are not undone.
pub(super) fn read_progress(
    mut progress: File,
    child: Pid,
    is_given_up: &AtomicBool,
) -> io::Result<Progress> {
    let mut told = Vec::new();
    let mut killed = false;
    loop {
        let some = |timeout: PollTimeout| {
            let mut polled = [PollFd::new(progress.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(count) => Ok(count > 0),
                Err(Errno::EINTR) => Ok(false),
                Err(errno) => Err(errno),
            }
        };
        if !some(PollTimeout::from(LOOK_MS))? {
            let stopped = is_stopped(child);
            let given_up = is_given_up.load(Ordering::Relaxed);
            // If the command was executed meanwhile, the stop is one of the command, which has made progress.
            if (stopped || given_up) && !some(PollTimeout::ZERO)? {
                // A tracer may have caused the stop; the kernel reports that too.
                if given_up {
                    kill(child, Signal::SIGKILL)?;
                    killed = true;
                } else {
                    kill(child, Signal::SIGCONT)?;
                }
            }
            continue;
        }
        let mut some = [0; 64];
        match progress.read(&mut some)? {
            0 if killed => return Ok(Progress::Killed),
            0 => return Ok(Progress::Done(told)),
            count => told.extend_from_slice(&some[..count]),
        }
    }
}

/// A child that must be reaped. Until then its number is not reused.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Child {
    /// The child with this process id.
    pub(super) fn new(pid: libc::pid_t) -> io::Result<Self> {
        Ok(Self {
            pid: Pid::from_raw(pid),
            ended: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// If waitpid(2) fails.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(WaitPidFlag::WNOHANG)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If waitpid(2) fails.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(ended) = self.wait_with(WaitPidFlag::empty())? {
                return Ok(ended);
            }
        }
    }

    /// A stop is not an exit: a child that has made this process its tracer is detached.
    fn wait_with(&mut self, flags: WaitPidFlag) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let flags = flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        match child_status::next(Some(self.pid), flags) {
            Ok(Some((_, ChildStatus::Ended))) => {}
            Ok(Some((_, ChildStatus::Trapped(signal)))) => {
                // If this fails, the stop is reported again, or the child was killed.
                let _ = let_go(self.pid, signal);
                return Ok(None);
            }
            Ok(_) | Err(Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let mut status = 0;
        // SAFETY: the kernel writes one integer.
        let waited = unsafe { libc::waitpid(self.pid.as_raw(), &raw mut status, libc::WNOHANG) };
        if Errno::result(waited)? != 0 {
            self.ended = Some(ExitStatus::from_raw(status));
        }
        Ok(self.ended)
    }

    /// Kills the child, unless it has ended.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        if self.ended.is_none() {
            kill(self.pid, Signal::SIGKILL)?;
        }
        Ok(())
    }
}

/// The maximum number of ended children that are reaped in one call.
const AT_A_TIME: usize = 4096;

/// Reaps the ended children of this process, except those in `kept`. A process in the fence can create children of this
/// process (CLONE_PARENT), for which nothing else waits. Children, and threads of the command, that have made this
/// process their tracer are detached, including those in `kept`.
///
/// An ended process in `kept` that was not reaped may hide the others. They are reaped later.
pub fn reap_all_but(kept: &[Pid]) {
    let seen = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    for _ in 0..AT_A_TIME {
        match child_status::next(None, seen | WaitPidFlag::__WALL) {
            Ok(Some((pid, ChildStatus::Ended))) if !kept.contains(&pid) => {
                let flags = libc::WNOHANG | libc::__WALL;
                // SAFETY: a null pointer means that the status is not needed.
                unsafe { libc::waitpid(pid.as_raw(), std::ptr::null_mut(), flags) };
            }
            Ok(Some((pid, ChildStatus::Trapped(signal)))) if let_go(pid, signal).is_ok() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_that_was_stopped_before_it_is_done_goes_on() {
        let mut child = Command::new("sh")
            .args(["-c", "echo one; kill -STOP $$; echo two"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let progress: std::os::fd::OwnedFd = child.stdout.take().unwrap().into();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let told = read_progress(progress.into(), pid, &AtomicBool::new(false)).unwrap();
        assert_eq!(told, Progress::Done(b"one\ntwo\n".into()));
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_child_that_has_executed_the_command_is_left_stopped() {
        let mut child = Command::new("sh")
            .args(["-c", "kill -STOP $$"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        while !is_stopped(pid) {
            std::thread::yield_now();
        }
        // The other end is closed, as after exec.
        let (progress, _) = io::pipe().unwrap();
        let progress = std::os::fd::OwnedFd::from(progress);
        let told = read_progress(progress.into(), pid, &AtomicBool::new(false)).unwrap();
        assert_eq!(told, Progress::Done(Vec::new()));
        assert!(is_stopped(pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_child_that_is_given_up_is_killed() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let progress: std::os::fd::OwnedFd = child.stdout.take().unwrap().into();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let progress = read_progress(progress.into(), pid, &AtomicBool::new(true)).unwrap();
        assert_eq!(progress, Progress::Killed);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
