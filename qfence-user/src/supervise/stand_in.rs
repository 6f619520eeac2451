//! The stand-in: while the supervisor of a fence is stopped, a separate process follows the host's addresses and
//! nameservers and checks the fence for damage. Neither the terminal nor a process in the fence can stop it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getppid},
};
use tokio::{
    io::unix::AsyncFd,
    time::{MissedTickBehavior, interval},
};

use crate::{
    base::{console, paths::Paths, readable::readable},
    fence::{
        cgroup::Cgroup,
        integrity::{Integrity, OnDamage, Parts},
        registry::Fences,
    },
    host::watcher::Watcher,
    kernel::{Maps, pins::Pins},
    launch::child::{Detached, Lifetime, StartReport, start_detached},
    stored_policy::PolicyFile,
    supervise::{TICK, follower::Follower},
};

/// The hidden verb.
pub const VERB: &str = "stand-in";

/// The message that the stand-in follows the host.
const READY: u8 = b'r';

/// The orders for a stand-in.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The name of the fence.
    pub fence: Arc<str>,
    /// The command of the fence.
    pub command: Pid,
    /// The reaction to damage.
    pub on_damage: OnDamage,
    /// The parts of the fence.
    pub parts: Parts,
    /// resolv.conf.
    pub resolv_conf: PathBuf,
}

impl Orders {
    /// The arguments of a stand-in's command line.
    fn arguments(&self) -> Vec<String> {
        let on_damage = self.on_damage.to_possible_value();
        let on_damage = on_damage.map(|value| value.get_name().to_owned());
        vec![
            VERB.into(),
            format!("--command={}", self.command),
            format!("--on-damage={}", on_damage.unwrap_or_default()),
            format!("--parts={}", self.parts),
            format!("--resolv-conf={}", self.resolv_conf.display()),
            "--".into(),
            self.fence.to_string(),
        ]
    }
}

/// A stand-in, from the side of the supervisor. Dropping it ends it.
#[derive(Debug)]
pub struct StandIn {
    process: Detached,
    ready: bool,
}

impl StandIn {
    /// Starts a stand-in. Must be called from the first thread, within a tokio runtime, with the signals of a terminal
    /// blocked.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub fn start(orders: &Orders) -> Result<Self> {
        let arguments = orders.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(Self {
            process: start_detached(&arguments, Lifetime::Ours)?,
            ready: false,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until it follows the host. Cancel-safe.
    ///
    /// # Errors
    /// If it does not get that far. The reason is on standard error, or in the error.
    pub async fn ready(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        match self.process.first_word().await? {
            StartReport::Byte(READY) => self.ready = true,
            StartReport::Byte(other) => bail!("it has sent {other:#04x}"),
            StartReport::Nothing => bail!("it has ended"),
            StartReport::Failed(error) => {
                return Err(anyhow!(error).context("it cannot be executed"));
            }
        }
        Ok(())
    }
}

/// Follows the host for a fence, and checks the fence for damage, until standard input is closed. Reports on standard
/// output when it has begun. Must be called within a tokio runtime.
///
/// # Errors
/// If it cannot begin. Later errors are reported, and tried again.
pub async fn follow(orders: Orders, paths: &Paths) -> Result<()> {
    let pins = Pins::new(&paths.bpffs).directory(&orders.fence);
    let policy_file = PolicyFile::new(&paths.run, &orders.fence, &pins);
    let cgroup = Fences::look(paths)?.place(&orders.fence).cgroup().clone();
    let maps = Maps::open(&pins)?;
    let parts = orders.parts.clone();
    let mut integrity = Integrity::new(cgroup.directory(), &pins, parts, Some(orders.command));
    let watcher = Watcher::new(&Paths {
        resolv_conf: orders.resolv_conf.clone(),
        ..paths.clone()
    });
    let mut follower = Follower::in_place_of_supervisor(policy_file, &pins, &watcher).await?;
    let mut messages = console::never_block()?;
    let supervisor = readable(io::stdin()).context("cannot poll standard input")?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate. Changes that the supervisor has not published yet are published before the message.
    // If that fails, the supervisor would have failed too.
    tick.tick().await;
    follower.tick(&mut messages).await;
    let mut stdout = io::stdout();
    stdout
        .write_all(&[READY])
        .and_then(|()| stdout.flush())
        .context("cannot report to the supervisor")?;
    loop {
        tokio::select! {
            ended = ended(&supervisor) => return ended,
            () = follower.changed() => follower.keep_up(&mut messages).await,
            _ = tick.tick() => {
                let is_damaged = integrity.report(&maps, &orders.fence, orders.on_damage, &messages);
                if is_damaged && orders.on_damage == OnDamage::Kill {
                    end(&cgroup, orders.command);
                }
                follower.tick(&mut messages).await;
            }
        }
    }
}

/// Ends the processes in a fence, and continues the supervisor, which is the parent of this process. The supervisor
/// waits for their end, finds the damage itself, and removes the fence.
fn end(cgroup: &Cgroup, command: Pid) {
    // The supervisor reports processes that do not end.
    let _ = cgroup.kill_all(Duration::ZERO);
    // The command may have left the cgroup. The supervisor is stopped, or was a moment ago, and has not reaped it. So
    // its number was not reused.
    let _ = kill(command, Signal::SIGKILL);
    let _ = kill(getppid(), Signal::SIGCONT);
}

/// Waits until the other end is closed. Nothing is ever written to it.
async fn ended(supervisor: &AsyncFd<io::Stdin>) -> Result<()> {
    let ended = supervisor.readable().await;
    ended
        .map(drop)
        .context("cannot wait for the end of the supervisor")
}
