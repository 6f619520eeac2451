//! Starts the command: everything between fork and exec, and the child's end.

mod apply;
mod bpf;
mod calls;
mod capabilities;
mod closures;
mod decoy;
mod descriptors;
mod detached;
mod domain;
mod filter;
mod keyring;
mod limits;
mod process;
mod refusals;
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
pub use closures::{Closures, Wanted, lacking};
pub use detached::{Detached, Lifetime, StartReport, start_detached};
pub use limits::{Lifted, lift_limits};
use nix::{
    fcntl::OFlag,
    sys::signal::SigSet,
    unistd::{Pid, pipe2},
};
pub use process::{Child, reap_all_but};
use process::{Progress, read_progress};
pub(in crate::launch) use refusals::describe;

use spawn::{Words, failure, spawn};
use steps::{before_exec, explain};
use tokio::sync::oneshot;

use crate::{
    base::identity::Identity,
    fence::cgroup::Entry,
    kernel::proof::{Proof, Unproven},
    launch::{
        dispositions::Reignored,
        environment::Environment,
        managers::{Entered, Managers},
        namespace,
        netns::Netns,
    },
};

/// The command to start, and its circumstances.
pub struct Launch<'a> {
    /// The command and its arguments.
    pub command: &'a [OsString],
    /// The user of the command; `None` to stay root.
    pub identity: Option<&'a Identity>,
    /// The environment of the command.
    pub environment: Environment,
    /// The fence's cgroup; `None` to stay in the current one.
    pub entry: Option<Entry>,
    /// The proof that the fence covers the child; `None` to start without one.
    pub proof: Option<Proof>,
    /// The closures; `None` to start without them, which is not a fence.
    pub closures: Option<Arc<Closures>>,
    /// The managers to mask; `None` to leave the command in this mount namespace.
    pub managers: Option<Managers>,
    /// The named network namespace that this process has entered; the command gets its files.
    pub netns: Option<Netns>,
    /// Whether processes in the fence may gain privileges, for instance by set-user-ID executables.
    pub allow_new_privs: bool,
    /// The signal mask that qfence was started with.
    pub signal_mask: SigSet,
    /// Signals that the caller ignores and qfence does not.
    pub reignored: Reignored,
    /// The limits that qfence was started with.
    pub limits: Lifted,
    /// The number of descriptors after the standard streams that the command gets.
    pub preserve_fds: u16,
    /// Further descriptors that the command gets, with the numbers that they have here.
    pub given: &'a [OwnedFd],
    /// The standard output of the command; `None` for that of this process.
    pub stdout: Option<OwnedFd>,
}

/// The reason why the command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The executable was not found.
    #[error("cannot start {0:?}: not found")]
    NotFound(OsString),
    /// The executable exists, but cannot be executed.
    #[error("cannot start {program:?}: {error}")]
    NotExecutable {
        /// The name of the executable.
        program: OsString,
        /// The error of exec.
        error: io::Error,
    },
    /// The start was cancelled before the command was executed.
    #[error("the start of the command was cancelled")]
    GivenUp,
    /// The fence does not cover the child.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// A step before exec has failed.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A command that is about to be started. Its process waits in the cgroup. Dropping this value ends it.
pub struct Starting {
    /// The pipe at which the process waits.
    gate: Option<File>,
    /// Receives the process id of the child.
    made: Receiver<Pid>,
    /// Receives the result of masking managers, before `made` receives.
    entered: Receiver<Entered>,
    /// Returns after the command was executed.
    thread: Option<JoinHandle<Result<Child, StartError>>>,
    /// Resolves when the thread returns.
    done: oneshot::Receiver<()>,
    /// Whether the thread is to cancel the start.
    is_given_up: Arc<AtomicBool>,
}

impl Starting {
    /// The process, which waits for [`Starting::go`]; `None` if it could not be made, whose error `go` returns.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.made.recv().ok()
    }

    /// The result of masking managers; `None` if that was not requested, or has failed. To be asked once.
    #[must_use]
    pub fn entered(&self) -> Option<Entered> {
        self.entered.recv().ok()
    }

    /// Lets the process execute the command. Until then it executes nothing of it.
    ///
    /// # Errors
    /// [`StartError`]; then no process is left.
    pub fn go(mut self) -> Result<Child, StartError> {
        self.open_gate();
        self.finish()
    }

    /// Lets the process execute the command. [`Starting::done`] waits for the result.
    pub fn open_gate(&mut self) {
        if let Some(gate) = &mut self.gate {
            // If the process is gone, the thread reports the reason.
            let _ = gate.write_all(&[0]);
        }
    }

    /// Waits until the command was executed, or the start has failed. Cancel-safe.
    pub async fn done(&mut self) {
        // An error means that the thread has panicked.
        let _ = (&mut self.done).await;
    }

    /// Returns the result of the start; waits for it without a limit.
    ///
    /// # Errors
    /// [`StartError`]; then no process is left.
    pub fn finish(mut self) -> Result<Child, StartError> {
        let started = self.join();
        started.unwrap_or_else(|| {
            Err(anyhow!("the thread that starts the command has panicked").into())
        })
    }

    /// Kills the process if it has not executed the command. The result is then [`StartError::GivenUp`].
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Abandons a cancelled process that does not end.
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

/// Starts the command. It enters the cgroup before it is executed. It has the session, process group, standard streams
/// and working directory of the caller.
///
/// # Errors
/// [`StartError`]; then no process is left.
pub fn start(launch: Launch<'_>) -> Result<Child, StartError> {
    prepare(launch)?.go()
}

/// Prepares the start. Until [`Starting::go`], the child makes no socket and executes nothing.
///
/// # Errors
/// [`StartError`]; then no process is left.
pub fn prepare(launch: Launch<'_>) -> Result<Starting, StartError> {
    let Some(program) = launch.command.first() else {
        return Err(anyhow!("no command was given").into());
    };
    let words = match Words::new(launch.command, &launch.environment) {
        Ok(words) => words,
        Err(error) => {
            let program = program.clone();
            return Err(StartError::NotExecutable { program, error });
        }
    };
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
    let ((progress, tell), (wait, gate)) = (pipe()?, pipe()?);
    let fail = tell.try_clone().context("cannot duplicate a descriptor")?;
    let before_exec = before_exec(&launch, tell, wait, fail.as_raw_fd())?;
    let (program, proof) = (program.clone(), launch.proof);
    let (entry, stdout) = (launch.entry, launch.stdout);
    let managers = launch.managers;
    let netns = launch.netns;
    let closures = launch.closures.clone();
    let (is_made, made) = channel();
    let (is_entered, entered) = channel();
    let (is_done, done) = oneshot::channel();
    let is_given_up = Arc::new(AtomicBool::new(false));
    let to_give_up = Arc::clone(&is_given_up);
    let thread = thread::Builder::new().spawn(move || {
        let _done: oneshot::Sender<()> = is_done;
        // The child is made in the namespaces of this thread.
        let mut has_namespace = false;
        if let Some(managers) = managers {
            let result = managers.enter()?;
            has_namespace = matches!(result, Entered::Masked(_));
            // The receiver may be gone.
            let _ = is_entered.send(result);
        }
        if let Some(files) = closures.as_deref().and_then(Closures::files) {
            if !has_namespace {
                let entered = namespace::enter()?;
                entered.map_err(|reason| anyhow!("--strict=files: {reason}"))?;
                has_namespace = true;
            }
            files.make_rest_read_only()?;
        }
        if let Some(netns) = netns {
            if !has_namespace {
                let entered = namespace::enter()?;
                entered.map_err(|reason| anyhow!("--netns: {reason}"))?;
            }
            netns.bind_files()?;
        }
        drop(closures);
        drop(is_entered);
        // SAFETY: `before_exec` uses system calls only, and none that the C library would repeat in all threads.
        let spawned = unsafe { spawn(&words, entry, stdout, &fail, before_exec) };
        drop(fail);
        let mut child = spawned.context("cannot fork for the command")?;
        // The receiver may be gone.
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
                let doing = "cannot read the progress of the command's start";
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
        entered,
        thread: Some(thread.context("cannot make a thread")?),
        done,
        is_given_up,
    })
}
