//! Finds out whether the programs of [`Hook::MANAGERS`](qfence_common::Hook::MANAGERS), and so those of all hooks of security
//! modules, run on this kernel.

use std::{ffi::OsString, path::Path};

use anyhow::Result;
use nix::sys::signal::SigSet;

use crate::{
    fence::cgroup::Cgroup,
    kernel::lsm_trial::{self, LsmTrial},
    launch::{
        child::{self, Launch, Lifted, StartError},
        dispositions::Reignored,
        environment::Environment,
    },
};

/// A path that cannot exist. The trial's process has nothing to execute: it ends after the proof.
const NOTHING: &str = "/dev/null/nothing";

/// Whether the programs run on this kernel; the second value is the reason if they do not. The outcome is cached for this
/// boot in `run`, qfence's directory of files; otherwise it is tried in `cgroup`, as by [`try_lsm`].
///
/// # Errors
/// If it cannot be tried.
pub fn lsm_runs(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Result<(), String>> {
    match lsm_trial::earlier(run) {
        Some(why_not) => Ok(why_not.map_or(Ok(()), Err)),
        None => try_lsm(cgroup, run, limits),
    }
}

/// Tries the programs: attaches them to a cgroup, and starts a process in it that connects to a socket which they refuse.
/// Only the cached outcome is left.
///
/// # Errors
/// If the process cannot be started.
pub fn try_lsm(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Result<(), String>> {
    let outcome = start(cgroup, run, limits)?;
    // Without the cache the next start tries it again.
    let _ = lsm_trial::keep(run, outcome.as_ref().err().map(String::as_str));
    Ok(outcome)
}

fn start(cgroup: &Cgroup, run: &Path, limits: Lifted) -> Result<Result<(), String>> {
    let trial = match LsmTrial::new(&cgroup.open()?, run) {
        Ok(trial) => trial,
        Err(error) => return Ok(Err(error.in_brief())),
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
    match started {
        Err(StartError::NotFound(_) | StartError::NotExecutable { .. }) => Ok(Ok(())),
        Err(StartError::Unproven(_)) => Ok(Err(
            "the programs are attached, and do not run: bpf is not an active security module (lsm=)".into(),
        )),
        Err(error) => Err(error.into()),
        Ok(mut child) => {
            // It has proved all that there is to prove.
            child.kill()?;
            child.wait()?;
            Ok(Ok(()))
        }
    }
}
