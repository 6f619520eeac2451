//! Containers that run already when the plugin connects, and that should have a fence. They are fenced as `attach --detach`
//! does it, by a process of its own each, so that the plugin answers meanwhile.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::voice::Voice;
use crate::{
    base::paths::Paths,
    fence::registry::Fences,
    workload::{self, Target, nri::found::Late, oci::attach::words},
};

/// Fences them one after the other. Those that cannot be fenced are named.
pub(super) fn fence(all: &[Late], options: &[String], voice: Voice, paths: &Paths) {
    for late in all {
        match fence_one(late, options, voice, paths) {
            Ok(true) => voice.say(&format!(
                "warning: {} has run without its fence until now: it was made while the plugin was not connected",
                late.words
            )),
            Ok(false) => {}
            Err(error) => voice.say(&format!(
                "error: {} runs and is NOT FENCED: {error:#}",
                late.words
            )),
        }
    }
}

/// Fences one; `false` if it has a fence.
fn fence_one(late: &Late, options: &[String], voice: Voice, paths: &Paths) -> Result<bool> {
    let asked = match &late.asked {
        Ok(asked) => &asked.options,
        Err(refusal) => anyhow::bail!("{}", refusal.message()),
    };
    if is_fenced(&late.id, paths)? {
        return Ok(false);
    }
    let mut attach = Command::new(&paths.program);
    attach.arg("attach");
    attach.args(words(["--container", &late.id], &late.id, options, asked));
    attach.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = attach
        .output()
        .context("cannot execute qfence-user attach")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let said: Vec<_> = said
        .lines()
        .map(|line| line.strip_prefix("qfence: ").unwrap_or(line))
        .collect();
    ensure!(ended.status.success(), "{}", said.join("; "));
    for line in said {
        voice.say(line);
    }
    Ok(true)
}

/// Whether a fence is in force at the cgroup of a container.
fn is_fenced(id: &str, paths: &Paths) -> Result<bool> {
    let workload = workload::find(&Target::Container(id.to_owned()), paths)?;
    let fences = Fences::look(paths)?;
    let mount = fences.hierarchy().mount();
    let mut attached = fences.attached()?.into_iter();
    Ok(attached.any(|(name, place)| {
        place.exists()
            && place.below(mount) == Some(workload.cgroup.as_path())
            && fences.enforced(&name).is_ok()
    }))
}
