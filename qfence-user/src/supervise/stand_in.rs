//! Who follows the host's addresses and nameservers for a fence, and looks for damage of it, while its supervisor is
//! stopped: a process of its own, which neither the terminal nor anybody in the fence can stop.

use std::{
    io::{self, Write as _},
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
        hierarchy::Hierarchy,
        integrity::{Integrity, OnDamage, Parts},
    },
    host::watcher::Watcher,
    kernel::{Maps, pins::Pins},
    launch::child::{Detached, StartReport, start_detached},
    stored_policy::PolicyFile,
    supervise::{TICK, follower::Follower},
};

/// The hidden verb.
pub const VERB: &str = "stand-in";

/// The word for: the host is being followed.
const READY: u8 = b'r';

/// What a stand-in is to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The name of the fence that it follows the host for.
    pub fence: Arc<str>,
    /// The command that runs in it.
    pub command: Pid,
    /// What it does when the fence is not whole any more.
    pub on_damage: OnDamage,
    /// What the fence is made of.
    pub parts: Parts,
}

impl Orders {
    /// The command line of a stand-in.
    fn arguments(&self) -> Vec<String> {
        let on_damage = self.on_damage.to_possible_value();
        let on_damage = on_damage.map(|value| value.get_name().to_owned());
        vec![
            VERB.into(),
            format!("--command={}", self.command),
            format!("--on-damage={}", on_damage.unwrap_or_default()),
            format!("--parts={}", self.parts),
            "--".into(),
            self.fence.to_string(),
        ]
    }
}

/// A stand-in, as the supervisor sees it. It ends when this is dropped.
#[derive(Debug)]
pub struct StandIn {
    process: Detached,
    ready: bool,
}

impl StandIn {
    /// Starts one with these orders. Must be called from the first thread, within a tokio runtime, with
    /// the signals of a terminal blocked.
    ///
    /// # Errors
    /// If there can be no process.
    pub fn start(orders: &Orders) -> Result<Self> {
        let arguments = orders.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(Self {
            process: start_detached(&arguments)?,
            ready: false,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until it follows. Nothing is lost if it is not awaited to its end.
    ///
    /// # Errors
    /// If it does not come to that: why is on standard error, or in the error.
    pub async fn ready(&mut self) -> Result<()> {
        if self.ready {
            return Ok(());
        }
        match self.process.first_word().await? {
            StartReport::Byte(READY) => self.ready = true,
            StartReport::Byte(other) => bail!("it says {other:#04x}"),
            StartReport::Nothing => bail!("it has ended"),
            StartReport::Failed(error) => {
                return Err(anyhow!(error).context("it cannot be executed"));
            }
        }
        Ok(())
    }
}

/// Follows for a fence, and looks for damage of it, until nobody holds the other end of standard input; says on standard
/// output when it begins to. Must be called within a tokio runtime.
///
/// # Errors
/// If it cannot begin. What fails later is said, and tried again.
pub async fn follow(orders: Orders, paths: &Paths) -> Result<()> {
    let pins = Pins::new(&paths.bpffs).directory(&orders.fence);
    let policy_file = PolicyFile::new(&paths.run, &orders.fence, &pins);
    let cgroup = Hierarchy::find(&paths.mountinfo)?.cgroup(&orders.fence);
    let maps = Maps::open(&pins)?;
    let parts = orders.parts.clone();
    let mut integrity = Integrity::new(cgroup.directory(), &pins, parts, orders.command);
    let watcher = Watcher::new(&paths.resolv_conf);
    let mut follower = Follower::in_place_of_supervisor(policy_file, &pins, &watcher).await?;
    let mut messages = console::never_block()?;
    let supervisor = readable(io::stdin()).context("cannot poll standard input")?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is due at once. What the supervisor has not published yet is in force before the word is given;
    // if it cannot be published, the supervisor could not either.
    tick.tick().await;
    follower.tick(&mut messages).await;
    let mut stdout = io::stdout();
    stdout
        .write_all(&[READY])
        .and_then(|()| stdout.flush())
        .context("cannot tell the supervisor")?;
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

/// Ends what runs in a fence, and has the supervisor, this process's parent, go on: it waits for the end, sees the damage
/// itself, and removes the fence.
fn end(cgroup: &Cgroup, command: Pid) {
    // What does not end at once the supervisor says.
    let _ = cgroup.kill_all(Duration::ZERO);
    // It may have left the cgroup. The supervisor has not waited for it, so that the number is its own: it is stopped, or
    // was a moment ago.
    let _ = kill(command, Signal::SIGKILL);
    let _ = kill(getppid(), Signal::SIGCONT);
}

/// Waits until nobody holds the other end: nothing is ever written there.
async fn ended(supervisor: &AsyncFd<io::Stdin>) -> Result<()> {
    let ended = supervisor.readable().await;
    ended
        .map(drop)
        .context("cannot wait for the end of the supervisor")
}
