//! Starts a process of qfence that neither the fence nor its terminal can reach.

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
use crate::launch::environment::Environment;

/// This program, even if its file was moved or removed.
const SELF: &str = "/proc/self/exe";

/// A process of qfence. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Detached {
    child: Child,
    /// Its standard output.
    words: pipe::Receiver,
    /// The other end of its standard input, with [`Lifetime::Ours`].
    _alive: Option<OwnedFd>,
    /// Whether it outlives this value.
    is_left: bool,
}

/// How long a process lives.
#[derive(Debug)]
pub enum Lifetime {
    /// It is killed when this process ends for any reason. Then also the pipe ends that is its standard input.
    ///
    /// To be used from a thread that lives as long as the process: the kernel ends the child with the thread that made it
    /// (`PR_SET_PDEATHSIG`).
    Ours,
    /// It outlives this process.
    Own {
        /// Its standard input.
        stdin: OwnedFd,
    },
}

/// The first message of a process on its standard output.
#[derive(Debug)]
pub enum StartReport {
    /// It has written this byte.
    Byte(u8),
    /// It has ended without a message.
    Nothing,
    /// It could not be executed.
    Failed(io::Error),
}

/// Starts this program with other arguments, as the same user, in its own session, with only standard error of this
/// process's descriptors. The new process must close any descriptor that was opened without close-on-exec.
///
/// Must be called within a tokio runtime. The signals of a terminal must be blocked, because they could stop the child
/// until it has its own session.
///
/// # Errors
/// If the process cannot be made. Whether it was executed is returned by [`Detached::first_word`].
pub fn start_detached(arguments: &[&str], lifetime: Lifetime) -> Result<Detached> {
    let command: Vec<OsString> = [SELF].iter().chain(arguments).map(OsString::from).collect();
    let words =
        Words::new(&command, &Environment::default()).context("an argument with a zero byte")?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
    let (stdin, alive) = match lifetime {
        Lifetime::Ours => {
            let (stdin, alive) = pipe()?;
            (stdin, Some(alive))
        }
        Lifetime::Own { stdin } => (stdin, None),
    };
    let is_ours = alive.is_some();
    let (heard, stdout) = pipe()?;
    let fail = stdout
        .try_clone()
        .context("cannot duplicate a descriptor")?;
    let heard = pipe::Receiver::from_owned_fd(heard).context("cannot poll a pipe")?;
    let become_detached = || -> io::Result<()> {
        // The order matters. In its own session the process gets no signals from a terminal, and no SIGCONT from
        // processes of the old session: SIGCONT is the one signal that they could send (`check_kill_permission` in
        // kernel/signal.c).
        setsid()?;
        if is_ours {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        dup2_stdin(stdin.as_fd())?;
        Ok(())
    };
    // SAFETY: the closure uses system calls only, and none that the C library would repeat in all threads.
    let child = unsafe { spawn(&words, None, Some(stdout), &fail, |_| become_detached()) };
    Ok(Detached {
        child: child.context("cannot fork")?,
        words: heard,
        _alive: alive,
        is_left: false,
    })
}

impl Detached {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Lets it outlive this value. It must be able to, see [`Lifetime`].
    pub fn leave(mut self) {
        self.is_left = true;
    }

    /// Whether it has ended. True also if that cannot be found out.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its first message. Cancel-safe.
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
        if self.is_left {
            return;
        }
        // It may have ended. Its number is not reused before it is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
