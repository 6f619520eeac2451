//! Finds out whether the programs of [`Hook::MANAGERS`](qfence_common::Hook::MANAGERS), and so those of all hooks of security
//! modules, run on this kernel.

use std::{ffi::OsString, path::Path};

use anyhow::{Result, bail};
use nix::sys::signal::SigSet;

use crate::{
    fence::cgroup::Cgroup,
    kernel::lsm_trial::{self, LsmTrial, Outcome},
    launch::{
        child::{self, Launch, Lifted, StartError},
        dispositions::Reignored,
        environment::Environment,
    },
};

/// A path that cannot exist. The trial's process has nothing to execute: it ends after the proof.
const NOTHING: &str = "/dev/null/nothing";

/// Whether the programs run on this kernel. An answer of the kernel is cached for this boot in `run`, qfence's directory of
/// files; without it the programs are tried in `cgroup`, as by [`try_lsm`].
///
/// # Errors
/// If it cannot be tried.
pub fn lsm_runs(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Outcome> {
    match lsm_trial::earlier(run) {
        Some(outcome) => Ok(outcome),
        None => try_lsm(cgroup, run, limits),
    }
}

/// Tries the programs: attaches them to a cgroup, and starts a process in it that connects to a socket which they refuse.
/// Only the cached answer is left.
///
/// # Errors
/// If the process cannot be started.
pub fn try_lsm(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Outcome> {
    let outcome = start(cgroup, run, limits)?;
    // Without the cache the next start tries it again.
    let _ = lsm_trial::keep(run, &outcome);
    Ok(outcome)
}

fn start(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Outcome> {
    let trial = match LsmTrial::new(&cgroup.open()?, run) {
        Ok(trial) => trial,
        Err(error) => return Ok(Outcome::of_rejection(&error)),
    };
    let started = child::start(Launch {
        command: &[OsString::from(NOTHING)],
        identity: None,
        environment: Environment::default(),
        entry: Some(cgroup.entry()?),
        proof: Some(trial.proof()),
        closures: None,
        managers: None,
        netns: None,
        allow_new_privs: false,
        signal_mask: SigSet::empty(),
        reignored: Reignored::default(),
        limits,
        preserve_fds: 0,
        given: &[],
        stdout: None,
    });
    judge(match started {
        Ok(mut child) => {
            child.kill()?;
            child.wait()?;
            Ok(())
        }
        Err(error) => Err(error),
    })
}

/// Judges by the way in which the process of the trial ended.
fn judge(started: Result<(), StartError>) -> Result<Outcome> {
    match started {
        // It has proved all that there is to prove, and found nothing to execute.
        Err(StartError::NotFound(_) | StartError::NotExecutable { .. }) => Ok(Outcome::Run),
        Err(StartError::Unproven(unproven)) if unproven.was_allowed() => Ok(Outcome::DoNotRun(
            "the programs are attached, and do not run: bpf is not an active security module (lsm=)".into(),
        )),
        // The call did not get as far as the programs.
        Err(StartError::Unproven(unproven)) => Ok(Outcome::Unknown(format!(
            "the programs are attached; a call that they must refuse was tried, and {}",
            unproven.found()
        ))),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("a process that tries the programs was killed; try again"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use nix::errno::Errno;
    use qfence_common::Hook;

    use super::*;
    use crate::kernel::proof::Proof;

    /// The outcome if the call that the programs must refuse ends in this error.
    fn outcome(error: io::Error) -> Outcome {
        let proof = Proof::new(true, &[]);
        let unproven = proof.unproven(Hook::UnixStreamConnect, &error);
        judge(Err(unproven.into())).unwrap()
    }

    #[test]
    fn only_a_call_that_was_allowed_shows_that_the_programs_do_not_run() {
        let allowed = outcome(io::Error::from_raw_os_error(0));
        assert!(matches!(allowed, Outcome::DoNotRun(_)), "{allowed:?}");
        for errno in [
            Errno::EMFILE,
            Errno::ENOMEM,
            Errno::EINTR,
            Errno::EAGAIN,
            Errno::EACCES,
        ] {
            let Outcome::Unknown(why) = outcome(errno.into()) else {
                panic!("{errno} counts as an answer");
            };
            assert!(why.ends_with(&format!("it failed with {errno:?}")), "{why}");
        }
    }

    #[test]
    fn a_process_that_had_nothing_to_execute_has_proved_that_they_run() {
        let not_found = StartError::NotFound(NOTHING.into());
        assert_eq!(judge(Err(not_found)).unwrap(), Outcome::Run);
        let not_executable = StartError::NotExecutable {
            program: NOTHING.into(),
            error: Errno::ENOTDIR.into(),
        };
        assert_eq!(judge(Err(not_executable)).unwrap(), Outcome::Run);
    }

    #[test]
    fn a_process_that_was_killed_shows_nothing() {
        judge(Ok(())).unwrap_err();
        judge(Err(StartError::GivenUp)).unwrap_err();
    }
}
