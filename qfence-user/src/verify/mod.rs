//! Shows on the user's own kernel that a fence holds: a throw-away fence in a private network, every
//! class of attempt to reach the host without it and with it, and what must work all the same.
//!
//! The process does nothing else: it moves to namespaces of its own, which end with it.
//!
//! | file | its one job |
//! |---|---|
//! | [`mounts`] | a /run/qfence of its own, with a resolv.conf |
//! | [`netns`], [`wire`], [`internet`] | a private host and internet; tests use them too |
//! | [`scene`] | those of `verify` |
//! | [`listeners`] | services that record what reaches them; tests use them too |
//! | [`services`], [`witness`] | the services of `verify`; a packet socket that sees what arrives |
//! | [`throwaway`] | the fence, and its record of refusals |
//! | [`actors`] | processes of an unprivileged user, outside and inside |
//! | [`cases`], [`device`], [`calls`], [`keys`], [`groups`], [`container`], [`service`] | what is tried |
//! | [`run`] | tries it all |
//! | [`judge`], [`report`] | what that shows |
//! | [`short`] | the short form, before `exec` |
//! | [`program`] | the program that all of this is in |

pub mod actors;
pub mod calls;
pub mod cases;
pub mod container;
pub mod device;
pub mod groups;
pub mod internet;
pub mod judge;
pub mod keys;
pub mod listeners;
pub mod mounts;
pub mod netns;
pub mod program;
pub mod report;
pub mod run;
pub mod scene;
pub mod service;
pub mod services;
pub mod short;
pub mod throwaway;
pub mod wire;
pub mod witness;

use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, raise};

use crate::{
    base::paths::Paths,
    fence::nested,
    launch::signals::{Blocked, Received, Signals},
};
use actors::Actors;
use report::Report;
use run::Stage;
use scene::Scene;
use throwaway::ThrowAway;
use witness::Witness;

/// How it ended.
pub enum Ended {
    /// All was tried.
    Report(Report),
    /// Somebody did not want to wait for it.
    Interrupted(Signal),
}

/// Tries everything, or the short form of it. This process is of no use for anything else afterwards:
/// it stays in its namespaces.
///
/// # Errors
/// If something cannot be tried: then nothing is shown. What was made is removed.
pub fn verify(paths: &Paths, short: bool) -> Result<Ended> {
    nested::refuse(paths)?;
    let blocked = Blocked::new()?;
    let paths = mounts::make_private(paths)?;
    let scene = Scene::enter()?;
    let _services = services::start(&scene)?;
    let witness = Witness::new()?;
    let actors = Actors::new(blocked)?;
    let release = fs::read_to_string(paths.proc.join("sys/kernel/osrelease"))
        .context("cannot read the kernel's release")?;

    // One thread: what is started on it is on the private host.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(async {
        let mut signals = blocked.receive()?;
        let mut fence = ThrowAway::new(&paths).await?;
        let mut stage = Stage {
            scene: &scene,
            witness: &witness,
            actors: &actors,
            fence: &mut fence,
            short,
        };
        let tried = async {
            let attempts = stage.attempts().await?;
            let must_work = stage.must_work().await?;
            let kernel = release.trim().to_owned();
            Ok(Report::new(kernel, attempts, must_work))
        };
        let ended = tokio::select! {
            // First: a signal of the terminal's ends the attempt under way as well, which then has no
            // outcome.
            biased;
            interrupted = interruption(&mut signals) => interrupted.map(Ended::Interrupted),
            report = tried => report.map(Ended::Report),
        };
        let removed = fence.remove();
        let ended = ended?;
        removed?;
        Ok(ended)
    })
}

/// Waits for a signal that means to end.
async fn interruption(signals: &mut Signals) -> Result<Signal> {
    loop {
        match signals.next().await.context("cannot read signals")? {
            Received::Child | Received::Reopen => {}
            Received::PassOn(signal) | Received::Shared(signal) => return Ok(signal),
            // The fence is a throw-away one: nobody needs to follow for it meanwhile.
            Received::Stop { .. } => raise(Signal::SIGSTOP).context("cannot stop")?,
        }
    }
}
