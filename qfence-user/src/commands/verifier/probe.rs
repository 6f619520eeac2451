//! `probe`: tries to reach destinations by various methods, and prints each outcome.

use std::{
    fs::File,
    io::{self, BufRead, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    unistd::{setgroups, setresgid, setresuid},
};

use crate::{
    base::identity::{self, Callers, Identity},
    cli::Probes,
    probe::{Opened, Probe},
};

/// Runs `probe`. A probe that fails is a result, not an error.
///
/// # Errors
/// If the namespace cannot be entered, the change of user fails, or a line cannot be written.
pub fn run(options: &Probes) -> Result<()> {
    if let Some(path) = &options.netns {
        enter(path).with_context(|| format!("enter the namespace {}", path.display()))?;
    }
    if let Some(user) = &options.r#as {
        // All sockets first: afterwards the process lacks the privileges to make them.
        let opened: Vec<Opened> = options.probes.iter().map(Probe::open).collect();
        let identity = identity::resolve(Some(user), &Callers::default())?;
        become_user(identity.as_ref()).with_context(|| format!("become the user {user}"))?;
        opened
            .into_iter()
            .zip(&options.probes)
            .try_for_each(|(opened, probe)| make(opened, probe, options))
    } else {
        // One after the other, so that several probes can bind to the same port.
        options
            .probes
            .iter()
            .try_for_each(|probe| make(probe.open(), probe, options))
    }
}

fn make(opened: Opened, probe: &Probe, options: &Probes) -> Result<()> {
    let mut pause = || {
        let line = serde_json::json!({ "attempt": probe.to_string(), "paused": true });
        writeln!(io::stdout(), "{line}")?;
        io::stdin().lock().read_line(&mut String::new()).map(drop)
    };
    let limit = Duration::from_millis(options.timeout_ms.into());
    let outcome = opened.make(limit, &mut pause);
    let line = serde_json::to_string(&outcome).context("put the outcome into words")?;
    writeln!(io::stdout(), "{line}").context("write to standard output")
}

fn enter(path: &Path) -> Result<()> {
    let namespace = File::open(path).context("open it")?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("setns (this needs root)")
}

fn become_user(identity: Option<&Identity>) -> Result<()> {
    let Some(identity) = identity else {
        bail!("to stay root, leave --as out");
    };
    setgroups(&identity.groups).context("set the groups")?;
    setresgid(identity.gid, identity.gid, identity.gid).context("set the group")?;
    setresuid(identity.uid, identity.uid, identity.uid).context("set the user")
}
