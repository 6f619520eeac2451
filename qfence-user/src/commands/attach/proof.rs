//! Proves that the fence covers the sockets that are made in its cgroup: a process of qfence's own enters it, tries the
//! calls that only this fence refuses, and ends.

use std::{ffi::OsString, fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result};

use super::target::Home;
use crate::{
    base::{console::notify, interruptible::Interrupted, message_queue::MessageQueue},
    fence::guard::Fence,
    kernel::{proof::Proof, within::within},
    launch::{
        child::{self, Launch, Lifted, StartError},
        environment::Environment,
        signals::{Blocked, Signals},
    },
    supervise::begin::begin_proof,
};

/// A path that cannot exist. The process has nothing to execute: it ends after the proof.
const NOTHING: &str = "/dev/null/nothing";

/// Makes the proof in the target's network namespace. Where no process can enter the cgroup, or the process does not run
/// there within ten seconds, because who owns the cgroup has frozen it, that is reported.
///
/// # Errors
/// If the fence does not cover the sockets, or a signal ends the start.
pub(super) async fn prove(
    fence: &Fence,
    home: &Home,
    proof: Proof,
    limits: Lifted,
    (blocked, signals, messages): (&Blocked, &mut Signals, &MessageQueue),
) -> Result<()> {
    if let Some(why) = why_not(fence) {
        notify(format_args!(
            "warning: whether the programs run for new sockets was not tried: {why}"
        ));
        return Ok(());
    }
    let netns = home.netns.as_ref().map(|netns| netns.as_fd());
    let entry = fence.cgroup().entry()?;
    let starting = within(netns, || {
        Ok(child::prepare(Launch {
            command: &[OsString::from(NOTHING)],
            identity: None,
            environment: Environment::default(),
            entry: Some(entry),
            proof: Some(proof),
            closures: None,
            managers: None,
            netns: None,
            allow_new_privs: false,
            signal_mask: blocked.mask_before(),
            reignored: blocked.reignored(),
            limits,
            preserve_fds: 0,
            given: &[],
            stdout: None,
        })?)
    })?;
    match begin_proof(starting, signals, messages).await {
        Err(StartError::NotFound(_) | StartError::NotExecutable { .. }) => Ok(()),
        Err(StartError::Unproven(error)) => Err(error.into()),
        Err(StartError::Failed(error)) if error.downcast_ref::<Interrupted>().is_none() => {
            notify(format_args!(
                "warning: whether the programs run for new sockets was not tried: {error:#}"
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(mut child) => {
            child.kill()?;
            child.wait().context("cannot wait for the proof")?;
            Ok(())
        }
    }
}

/// Why no process can enter the cgroup now, or would not run there.
fn why_not(fence: &Fence) -> Option<&'static str> {
    let read = |file: &str| {
        let path = fence.cgroup().directory().join(file);
        fs::read_to_string(path).unwrap_or_default()
    };
    if read("cgroup.events").lines().any(|line| line == "frozen 1") {
        return Some("the cgroup is frozen");
    }
    // cgroups(7), "no internal processes".
    if !read("cgroup.subtree_control").trim().is_empty() {
        return Some(
            "its cgroup passes controllers on, so that processes can only be in cgroups below",
        );
    }
    None
}
