//! A child of this process.

use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus};

use nix::{
    errno::Errno,
    libc,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

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
