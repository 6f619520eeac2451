//! Starts the command: the one place that forks, and with it the one place with unsafe code.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    fcntl::OFlag,
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
    },
    unistd::{pipe2, setgroups, setresgid, setresuid},
};

use qfence_common::Hook;

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

/// The steps of the child, each told to the parent before it is taken: the last one told is the one
/// that failed. A failing exec could not be told from the others otherwise.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    EnterCgroup,
    ProveConnect4,
    ProveConnect6,
    ProveSendmsg4,
    ProveSendmsg6,
    RestoreLimitsAndSignals,
    SetGroups,
    SetUser,
    SetNoNewPrivs,
    Exec,
}

/// The steps that prove the fence, and at which hook. To connect sends nothing, so it comes first: no
/// datagram leaves where the fence does not hold.
const PROOFS: [(Step, Hook); 4] = [
    (Step::ProveConnect4, Hook::Connect4),
    (Step::ProveConnect6, Hook::Connect6),
    (Step::ProveSendmsg4, Hook::Sendmsg4),
    (Step::ProveSendmsg6, Hook::Sendmsg6),
];

/// What the steps before the last do, in their order.
const DEEDS: [&str; Step::Exec as usize] = [
    "enter the cgroup",
    "prove the fence at connect4",
    "prove the fence at connect6",
    "prove the fence at sendmsg4",
    "prove the fence at sendmsg6",
    "restore limits and signals",
    "set the groups",
    "set the user",
    "set no_new_privs",
];

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

/// Starts the command. It is in the cgroup before it is executed, in the terminal's session and
/// process group of the caller, with its standard streams and working directory.
///
/// # Errors
/// [`StartError`]; nothing is left running then.
pub fn start(launch: Launch<'_>) -> Result<Child, StartError> {
    let Some((program, arguments)) = launch.command.split_first() else {
        return Err(anyhow!("no command was given").into());
    };
    let (progress, tell) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
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
    let before_exec = before_exec(&launch, tell)?;
    command.stdout(launch.stdout);
    // SAFETY: the closure makes system calls alone: it neither allocates nor takes locks.
    unsafe { command.pre_exec(before_exec) };
    let spawned = command.spawn();
    drop(command);

    spawned.map_err(|error| explain(program, launch.proof, error, progress))
}

/// What the child does between fork and exec.
fn before_exec(
    launch: &Launch<'_>,
    progress: OwnedFd,
) -> Result<impl FnMut() -> io::Result<()> + Send + Sync + 'static> {
    let mut procs = launch
        .procs
        .try_clone()
        .context("cannot duplicate a descriptor")?;
    let identity = launch
        .identity
        .map(|who| (who.uid, who.gid, who.groups.clone()));
    let (soft, hard) = launch.locked_memory;
    let mask = launch.signal_mask;
    let reignored = launch.reignored;
    let allow_new_privs = launch.allow_new_privs;
    let proof = launch.proof;
    Ok(move || {
        let tell = |step: Step| nix::unistd::write(&progress, &[step as u8]);
        // First, while this is still root: the file is root's. "0" is whoever writes it.
        tell(Step::EnterCgroup)?;
        procs.write_all(b"0")?;
        if let Some(proof) = proof {
            for (step, hook) in PROOFS {
                tell(step)?;
                proof.check(hook)?;
            }
        }
        tell(Step::RestoreLimitsAndSignals)?;
        setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
        reignored.ignore()?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        if let Some((uid, gid, groups)) = &identity {
            tell(Step::SetGroups)?;
            setgroups(groups)?;
            setresgid(*gid, *gid, *gid)?;
            tell(Step::SetUser)?;
            setresuid(*uid, *uid, *uid)?;
        }
        if !allow_new_privs {
            tell(Step::SetNoNewPrivs)?;
            prctl::set_no_new_privs()?;
        }
        tell(Step::Exec)?;
        Ok(())
    })
}

/// Tells a failing step from a failing exec.
fn explain(
    program: &OsString,
    proof: Option<Proof>,
    error: io::Error,
    progress: OwnedFd,
) -> StartError {
    let mut steps = Vec::new();
    // The writing ends are closed by now, in the child and here: this does not wait.
    let read = File::from(progress).read_to_end(&mut steps);
    let failed = PROOFS
        .into_iter()
        .find(|(step, _)| steps.last() == Some(&(*step as u8)));
    if let (Some(proof), Some((_, hook))) = (proof, failed) {
        return proof.unproven(hook, &error).into();
    }
    // Without a word of progress the fork itself has failed.
    let last = steps.last().map_or("fork", |step| {
        DEEDS.get(usize::from(*step)).copied().unwrap_or("")
    });
    if read.is_err() || !last.is_empty() {
        let doing = format!("cannot {last} for the command");
        return StartError::Failed(anyhow::Error::new(error).context(doing));
    }
    match error.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(program.clone()),
        _ => StartError::NotExecutable {
            program: program.clone(),
            error,
        },
    }
}
