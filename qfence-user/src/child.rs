//! Starts the command: the one place that forks, and with it the one place with unsafe code.

mod steps;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    fcntl::OFlag,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::SigSet,
    },
    unistd::pipe2,
};
use steps::{before_exec, explain};

use crate::{
    dispositions::Reignored,
    identity::Identity,
    proof::{Proof, Unproven},
};

/// What to start, and as what.
pub struct Launch<'a> {
    /// The command and its arguments.
    pub command: &'a [OsString],
    /// The user to become; `None` to stay root.
    pub identity: Option<&'a Identity>,
    /// `cgroup.procs` of the fence, open for writing.
    pub procs: File,
    /// How the fence is known to hold; `None` if that need not be proved first.
    pub proof: Option<Proof>,
    /// Whether programs in the fence may gain privileges, by set-user-ID say.
    pub allow_new_privs: bool,
    /// The signal mask qfence was started with.
    pub signal_mask: SigSet,
    /// Signals that the caller ignores, beside those that still are.
    pub reignored: Reignored,
    /// The limit on locked memory qfence was started with, soft and hard.
    pub locked_memory: (u64, u64),
    /// Its standard output.
    pub stdout: Stdio,
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
    /// The fence does not hold what is made in it.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// qfence could not get as far as to try.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Lifts the limit on locked memory, against which maps count before Linux 5.11; returns what it
/// was, for the command to get back.
///
/// # Errors
/// If it cannot be read. That it cannot be lifted matters only on old kernels, which say so.
pub fn lift_locked_memory_limit() -> Result<(u64, u64)> {
    let before = getrlimit(Resource::RLIMIT_MEMLOCK).context("cannot read RLIMIT_MEMLOCK")?;
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, u64::MAX, u64::MAX);
    Ok(before)
}

/// A command that is about to be started. It enters the cgroup and waits there; dropped, it ends.
///
/// To enter a cgroup takes some 10 ms of waiting, for the kernel to have seen the end of what ran before (RCU,
/// in `cgroup_attach_lock`): beside that a fence can be made.
pub struct Starting {
    /// What the process waits at.
    gate: Option<File>,
    /// Returns when it has executed the command.
    thread: Option<JoinHandle<Result<Child, StartError>>>,
}

impl Starting {
    /// Lets it execute the command; nothing else of it is before that.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn go(mut self) -> Result<Child, StartError> {
        if let Some(mut gate) = self.gate.take() {
            // Where nobody waits any more, the thread says why.
            let _ = gate.write_all(&[0]);
        }
        self.join()
            .unwrap_or_else(|| Err(anyhow!("starting the command has crashed").into()))
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
    let Some((program, arguments)) = launch.command.split_first() else {
        return Err(anyhow!("no command was given").into());
    };
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
    let ((progress, tell), (wait, gate)) = (pipe()?, pipe()?);
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in launch
        .identity
        .iter()
        .flat_map(|identity| &identity.environment)
    {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let before_exec = before_exec(&launch, tell, wait, gate.as_raw_fd())?;
    command.stdout(launch.stdout);
    // SAFETY: the closure makes system calls alone: it neither allocates nor takes locks.
    unsafe { command.pre_exec(before_exec) };
    let (program, proof) = (program.clone(), launch.proof);
    let thread = thread::spawn(move || {
        let spawned = command.spawn();
        drop(command);
        spawned.map_err(|error| explain(&program, proof, error, progress))
    });
    Ok(Starting {
        gate: Some(gate.into()),
        thread: Some(thread),
    })
}
