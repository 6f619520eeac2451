//! Starts the command: what is to be done for it before it is executed, and after.

mod bpf;
mod calls;
mod capabilities;
mod closures;
mod descriptors;
mod detached;
mod domain;
mod filter;
mod keyring;
mod limits;
mod process;
mod seccomp;
mod spawn;
mod steps;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
pub use closures::Closures;
pub use detached::{Detached, StartReport, start_detached};
pub use filter::Strictness;
pub use limits::{Lifted, lift_limits};
use nix::{
    fcntl::OFlag,
    sys::signal::SigSet,
    unistd::{Pid, pipe2},
};
pub use process::{Child, reap_all_but};
use process::{Progress, read_progress};

use spawn::{Words, failure, spawn};
use steps::{before_exec, explain};
use tokio::sync::oneshot;

use crate::{
    base::identity::Identity,
    fence::cgroup::Entry,
    kernel::proof::{Proof, Unproven},
    launch::dispositions::Reignored,
};

/// What to start, and as what.
pub struct Launch<'a> {
    /// The command and its arguments.
    pub command: &'a [OsString],
    /// The user to become; `None` to stay root.
    pub identity: Option<&'a Identity>,
    /// The way into the fence; `None` to stay where this process is.
    pub entry: Option<Entry>,
    /// How the fence is known to hold; `None` if that need not be proved first.
    pub proof: Option<Proof>,
    /// The filter of system calls; `None` to leave them as they are, which is no fence.
    pub closures: Option<Arc<Closures>>,
    /// Whether programs in the fence may gain privileges, by set-user-ID say.
    pub allow_new_privs: bool,
    /// The signal mask qfence was started with.
    pub signal_mask: SigSet,
    /// Signals that the caller ignores, beside those that still are.
    pub reignored: Reignored,
    /// The limits qfence was started with.
    pub limits: Lifted,
    /// How many descriptors after the standard streams the command is to have.
    pub preserve_fds: u16,
    /// Its standard output; `None` for this process's own.
    pub stdout: Option<OwnedFd>,
}

/// Why the command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("cannot start {0:?}: not found")]
    NotFound(OsString),
    /// It is there and cannot be executed.
    #[error("cannot start {program:?}: {error}")]
    NotExecutable {
        /// The program.
        program: OsString,
        /// What exec said.
        error: io::Error,
    },
    /// It was given up before it had executed the command.
    #[error("the start of the command was given up")]
    GivenUp,
    /// The fence does not hold what is made in it.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// qfence could not get as far as to try.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A command that is about to be started. It is in the cgroup and waits there; dropped, it ends.
pub struct Starting {
    /// What the process waits at.
    gate: Option<File>,
    /// Says which process it is, once there is one.
    made: Receiver<Pid>,
    /// Returns when it has executed the command.
    thread: Option<JoinHandle<Result<Child, StartError>>>,
    /// Resolves when the thread returns.
    done: oneshot::Receiver<()>,
    /// Whether the thread is to give the command up.
    is_given_up: Arc<AtomicBool>,
}

impl Starting {
    /// The process, which waits until [`Starting::go`]; `None` if there can be none, which that says.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.made.recv().ok()
    }

    /// Lets it execute the command; nothing else of it is before that.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn go(mut self) -> Result<Child, StartError> {
        self.open_gate();
        self.finish()
    }

    /// Lets it execute the command; how that goes, [`Starting::done`] waits for.
    pub fn open_gate(&mut self) {
        if let Some(gate) = &mut self.gate {
            // Where nobody waits any more, the thread says why.
            let _ = gate.write_all(&[0]);
        }
    }

    /// Waits until it has executed the command or that has failed. Nothing is lost if it is not awaited to its end.
    pub async fn done(&mut self) {
        // An error is a thread that has crashed.
        let _ = (&mut self.done).await;
    }

    /// What came of it; waits as long as it takes.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn finish(mut self) -> Result<Child, StartError> {
        let started = self.join();
        started.unwrap_or_else(|| Err(anyhow!("starting the command has crashed").into()))
    }

    /// Has it killed if it has not executed the command: then that is [`StartError::GivenUp`].
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Leaves it to itself: it was given up, and does not end.
    pub fn leave(mut self) {
        self.thread = None;
    }

    fn join(&mut self) -> Option<Result<Child, StartError>> {
        self.thread.take()?.join().ok()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.gate = None;
        self.join();
    }
}

/// Starts the command. It is in the cgroup before it is executed, in the terminal's session and
/// process group of the caller, with its standard streams and working directory.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub fn start(launch: Launch<'_>) -> Result<Child, StartError> {
    prepare(launch)?.go()
}

/// Begins to start the command: until [`Starting::go`] it makes no socket, and executes nothing.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub fn prepare(launch: Launch<'_>) -> Result<Starting, StartError> {
    let Some(program) = launch.command.first() else {
        return Err(anyhow!("no command was given").into());
    };
    let changes = launch.identity.map(|identity| &identity.environment[..]);
    let words = match Words::new(launch.command, changes.unwrap_or_default()) {
        Ok(words) => words,
        Err(error) => {
            let program = program.clone();
            return Err(StartError::NotExecutable { program, error });
        }
    };
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
    let ((progress, tell), (wait, gate)) = (pipe()?, pipe()?);
    let fail = tell.try_clone().context("cannot duplicate a descriptor")?;
    let before_exec = before_exec(&launch, tell, wait, fail.as_raw_fd());
    let (program, proof) = (program.clone(), launch.proof);
    let (entry, stdout) = (launch.entry, launch.stdout);
    let (is_made, made) = channel();
    let (is_done, done) = oneshot::channel();
    let is_given_up = Arc::new(AtomicBool::new(false));
    let to_give_up = Arc::clone(&is_given_up);
    let thread = thread::Builder::new().spawn(move || {
        let _done: oneshot::Sender<()> = is_done;
        // SAFETY: `before_exec` makes system calls alone, and none that the C library has all threads make.
        let spawned = unsafe { spawn(&words, entry, stdout, &fail, before_exec) };
        drop(fail);
        let mut child = spawned.context("cannot fork for the command")?;
        // Nobody has to ask.
        let _ = is_made.send(child.pid());
        let told = match read_progress(progress.into(), child.pid(), &to_give_up) {
            Ok(Progress::Done(told)) => told,
            Ok(Progress::Killed) => {
                let _ = child.wait();
                return Err(StartError::GivenUp);
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let doing = "cannot read how far the command is";
                return Err(anyhow::Error::new(error).context(doing).into());
            }
        };
        match failure(&told) {
            (_, None) => Ok(child),
            (steps, Some(error)) => {
                let _ = child.wait();
                Err(explain(&program, proof, error, steps))
            }
        }
    });
    Ok(Starting {
        gate: Some(gate.into()),
        made,
        thread: Some(thread.context("cannot make a thread")?),
        done,
        is_given_up,
    })
}
