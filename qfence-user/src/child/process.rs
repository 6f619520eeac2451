//! A child of this process.

use std::{
    fs::File,
    io::{self, Read as _},
    mem,
    os::{fd::AsFd as _, unix::process::ExitStatusExt},
    process::ExitStatus,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::job::is_stopped;

/// How often it is looked whether a child that does not get on was stopped, in milliseconds.
const LOOK_MS: u16 = 100;

/// Reads how far a child is, until it has executed the command or ended.
///
/// A terminal that is told to stop its job (Ctrl-Z) stops the child and not this process, which would wait for
/// ever, and the shell with it: the child goes on. What runs afterwards can be stopped.
pub(super) fn read_progress(mut progress: File, child: Pid) -> io::Result<Vec<u8>> {
    let mut told = Vec::new();
    loop {
        let mut polled = [PollFd::new(progress.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(LOOK_MS)) {
            Ok(0) if is_stopped(child) => kill(child, Signal::SIGCONT)?,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let mut some = [0; 64];
                match progress.read(&mut some)? {
                    0 => return Ok(told),
                    count => told.extend_from_slice(&some[..count]),
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A child, which is to be waited for: until that was done its number is nobody else's.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Child {
    /// That of a number.
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

    /// How it ended, if it has.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.wait_with(libc::WNOHANG)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(ended) = self.wait_with(0)? {
                return Ok(ended);
            }
        }
    }

    fn wait_with(&mut self, options: i32) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_some() {
            return Ok(self.ended);
        }
        let mut status = 0;
        // SAFETY: the kernel writes one integer.
        let waited = unsafe { libc::waitpid(self.pid.as_raw(), &raw mut status, options) };
        match Errno::result(waited) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => {
                self.ended = Some(ExitStatus::from_raw(status));
                Ok(self.ended)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills it, unless it has ended.
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

/// How many children that have ended are reaped at a time.
const AT_A_TIME: usize = 4096;

/// Reaps the children of this process that have ended, but for those in `kept`: a process in the fence can make
/// children of this process (CLONE_PARENT), of which nobody else takes notice.
///
/// One of `kept` that has ended and was not waited for may hide the others: they are for another time.
pub fn reap_all_but(kept: &[Pid]) {
    for _ in 0..AT_A_TIME {
        // Not nix's: that fails for one that was ended by a real-time signal, and does not say which one it is.
        // SAFETY: a struct of integers and addresses, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: the kernel writes one such struct.
        let waited = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
        if waited != 0 {
            return;
        }
        // SAFETY: waitid fills in what SIGCHLD has, and leaves zeros if there is nobody.
        let pid = unsafe { info.si_pid() };
        if pid <= 0 || kept.contains(&Pid::from_raw(pid)) {
            return;
        }
        let flags = libc::WNOHANG | libc::__WALL;
        // SAFETY: null is for who does not want the status.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), flags) };
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
        let told = read_progress(progress.into(), pid).unwrap();
        assert_eq!(told, b"one\ntwo\n");
        assert!(child.wait().unwrap().success());
    }
}
