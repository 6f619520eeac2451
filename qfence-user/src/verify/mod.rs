//! Shows on the user's own kernel that a fence works: a throw-away fence in a private network, every class of attempt
//! to reach the host without and with the fence, and the traffic that must work.
//!
//! The process does nothing else: it moves into its own namespaces, which end with it.
//!
//! | file | its one job |
//! |---|---|
//! | [`mounts`] | a private /run/qfence, with a resolv.conf |
//! | [`netns`], [`wire`], [`internet`] | a private host and a private internet, which tests use too |
//! | [`scene`] | the host and internet of `verify` |
//! | [`listeners`] | services that record the traffic that reaches them, which tests use too |
//! | [`translator`] | a NAT64 translator, which tests use too |
//! | [`services`], [`witness`] | the services of `verify`; a packet socket that sees all packets of the host |
//! | [`throwaway`] | the fence, and its record of refusals |
//! | [`actors`] | processes of an unprivileged user, outside and inside |
//! | [`cases`], [`device`], [`calls`], [`keys`], [`groups`], [`container`], [`own_netns`], [`own_listener`], [`service`] | the attempts, and traffic that must work |
//! | [`run`] | makes all of them |
//! | [`devices`] | the frames of guests with tap devices, as a second table; tests use the frames and the scene too |
//! | [`closures`] | the ways out that are no packets, as a third table |
//! | [`judge`], [`report`] | the verdicts and the report |
//! | [`short`] | the short form, before `exec` |
//! | [`program`] | finds the executable that contains this room |

pub mod actors;
pub mod calls;
pub mod cases;
pub mod closures;
pub mod container;
pub mod device;
pub mod devices;
pub mod groups;
pub mod internet;
pub mod judge;
pub mod keys;
pub mod listeners;
pub mod mounts;
pub mod netns;
pub mod own_listener;
pub mod own_netns;
pub mod program;
pub mod report;
pub mod run;
pub mod scene;
pub mod service;
pub mod services;
pub mod short;
pub mod throwaway;
pub mod translator;
pub mod wire;
pub mod witness;

use std::fs;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, raise};

use crate::{
    base::paths::Paths,
    fence::nested,
    launch::signals::{Blocked, Received, Signals},
};
use actors::Actors;
use closures::report::Closures;
use devices::report::Devices;
use report::Report;
use run::Stage;
use scene::Scene;
use throwaway::ThrowAway;
use witness::Witness;

/// The end of a verification.
pub enum Ended {
    /// Everything was tried.
    Report(Report),
    /// A signal interrupted it.
    Interrupted(Signal),
}

/// The part of a verification to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The short form, before `exec`.
    Short,
    /// The ways out that are no packets.
    Closures,
    /// The frames of guests with tap devices.
    Devices,
}

/// Runs the verification, or a part of it. Afterwards this process is unusable for anything else, because it
/// stays in its namespaces.
///
/// # Errors
/// If an attempt cannot be made; then nothing is shown. The fence is removed in any case.
pub fn verify(paths: &Paths, extent: Extent) -> Result<Ended> {
    nested::refuse(paths)?;
    let release = fs::read_to_string(paths.proc.join("sys/kernel/osrelease"))
        .context("cannot read the kernel's release")?;
    let kernel = release.trim().to_owned();
    // First, because `exec` is run with the signals and in the namespaces of the caller.
    let closures = match extent {
        Extent::Short | Extent::Devices => Closures::default(),
        Extent::Whole | Extent::Closures => closures::run(paths)?,
    };
    if extent == Extent::Closures {
        return Ok(Ended::Report(Report::of_closures(kernel, closures)));
    }
    let blocked = Blocked::new()?;
    let paths = mounts::make_private(paths)?;
    // The runtime has one thread: its tasks are in the network namespace that this thread is in when they start.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    if extent == Extent::Devices {
        return runtime.block_on(async {
            let mut signals = blocked.receive()?;
            let tried = async {
                let devices = devices::stage::run(&paths).await?;
                if let Some(why) = devices.untried {
                    bail!("no frame of a guest with a tap device can be tried on this host: {why}");
                }
                Ok(Report::of_devices(kernel, devices))
            };
            until_interrupted(&mut signals, tried).await
        });
    }
    let scene = Scene::enter()?;
    let _services = services::start(&scene)?;
    let _translator = services::translate(&scene)?;
    let witness = Witness::new()?;
    let actors = Actors::new(blocked)?;

    runtime.block_on(async {
        let mut signals = blocked.receive()?;
        let short = extent == Extent::Short;
        let mut fence = ThrowAway::new(&paths, &[]).await?;
        let mut stage = Stage {
            scene: &scene,
            witness: &witness,
            actors: &actors,
            fence: &mut fence,
            short,
        };
        let tried = async {
            let mut attempts = stage.attempts().await?;
            let mut must_work = stage.must_work().await?;
            let mut devices = Devices::default();
            if !short {
                // An interruption drops this fence, which removes it.
                let mut fence = ThrowAway::new(&paths, &[own_listener::RULE]).await?;
                let mut stage = Stage {
                    fence: &mut fence,
                    ..stage
                };
                attempts.extend(stage.of_host_despite_self().await?);
                must_work.extend(stage.of_self().await?);
                fence.remove()?;
                // Last, because it moves this thread to other namespaces.
                devices = devices::stage::run(&paths).await?;
            }
            Ok(Report::new(kernel, attempts, must_work, devices, closures))
        };
        let ended = until_interrupted(&mut signals, tried).await;
        let removed = fence.remove();
        let ended = ended?;
        removed?;
        Ok(ended)
    })
}

/// Waits for a report, or a signal that ends the process.
async fn until_interrupted(
    signals: &mut Signals,
    tried: impl Future<Output = Result<Report>>,
) -> Result<Ended> {
    tokio::select! {
        // Polled first: a signal of the terminal also ends the running attempt, which then has no outcome.
        biased;
        interrupted = interruption(signals) => interrupted.map(Ended::Interrupted),
        report = tried => report.map(Ended::Report),
    }
}

/// Waits for a signal that ends the process.
async fn interruption(signals: &mut Signals) -> Result<Signal> {
    loop {
        match signals.next().await.context("cannot read signals")? {
            Received::Child | Received::Reopen => {}
            Received::PassOn(signal) | Received::Shared(signal) => return Ok(signal),
            // The fence is a throw-away one and the host does not change, so no stand-in is needed.
            Received::Stop { .. } => raise(Signal::SIGSTOP).context("cannot stop")?,
        }
    }
}
