//! Starts a process of qfence's own that nobody in the fence can reach, nor its terminal.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::OFlag,
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    },
    unistd::{Pid, dup2_stdin, pipe2, setsid},
};
use tokio::net::unix::pipe;

use super::{
    process::Child,
    spawn::{FAILED, Words, failure, spawn},
};

/// This program, whatever became of its file.
const SELF: &str = "/proc/self/exe";

/// A process of qfence's own. It ends when this is dropped, and with this process, however that ends.
#[derive(Debug)]
pub struct Detached {
    child: Child,
    /// What it says on its standard output.
    words: pipe::Receiver,
    /// Its standard input: it ends with this process, and says so there.
    _alive: OwnedFd,
}

/// What a process says on its standard output.
#[derive(Debug)]
pub enum StartReport {
    /// This byte, first of all.
    Byte(u8),
    /// It has ended without a word.
    Nothing,
    /// It could not be executed.
    Failed(io::Error),
}

/// Starts this program with other arguments: as the user this process is, in a session of its own, with standard
/// error alone of what this process has open. It is to close whatever else was not opened to be closed.
///
/// Must be called from a thread that lasts as long as the process, for the kernel ends the child with that thread
/// (`PR_SET_PDEATHSIG`), and within a tokio runtime. The signals of a terminal must be blocked: until the child has
/// its own session it could be stopped.
///
/// # Errors
/// If there can be no process. Whether it was executed, [`Detached::first_word`] tells.
pub fn start_detached(arguments: &[&str]) -> Result<Detached> {
    let command: Vec<OsString> = [SELF].iter().chain(arguments).map(OsString::from).collect();
    let words = Words::new(&command, &[]).context("an argument with a zero byte")?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
    let ((stdin, alive), (heard, stdout)) = (pipe()?, pipe()?);
    let fail = stdout
        .try_clone()
        .context("cannot duplicate a descriptor")?;
    let heard = pipe::Receiver::from_owned_fd(heard).context("cannot poll a pipe")?;
    let become_detached = || -> io::Result<()> {
        // In this order. In a session of its own no terminal reaches it; nor does anybody else's SIGCONT, the
        // one signal that whoever is of the same session may send (`check_kill_permission` in kernel/signal.c).
        setsid()?;
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        dup2_stdin(stdin.as_fd())?;
        Ok(())
    };
    // SAFETY: the closure makes system calls alone, and none that the C library has all threads make.
    let child = unsafe { spawn(&words, None, Some(stdout), &fail, |_| become_detached()) };
    Ok(Detached {
        child: child.context("cannot fork")?,
        words: heard,
        _alive: alive,
    })
}

impl Detached {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Waits for its first word. Nothing is lost if it is not awaited to its end.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub async fn first_word(&mut self) -> io::Result<StartReport> {
        let mut told = [0; 1 + size_of::<i32>()];
        loop {
            self.words.readable().await?;
            return match self.words.try_read(&mut told) {
                Ok(0) => Ok(StartReport::Nothing),
                Ok(count) => Ok(match (told.first(), failure(&told[..count])) {
                    (Some(&FAILED), (_, Some(error))) => StartReport::Failed(error),
                    (Some(&byte), _) => StartReport::Byte(byte),
                    (None, _) => StartReport::Nothing,
                }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => Err(error),
            };
        }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // It may have ended; nobody else can have its number before it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
