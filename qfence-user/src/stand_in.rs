//! Who follows the host's addresses and nameservers for a fence while its supervisor is stopped: a process of its
//! own, which neither the terminal nor anybody in the fence can stop.

use std::io::{self, Write as _};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Pid;
use tokio::{
    io::unix::AsyncFd,
    time::{MissedTickBehavior, interval},
};

use crate::{
    child::{Apart, Told, start_apart},
    follow::Follower,
    paths::Paths,
    pins::Pins,
    readable::readable,
    say,
    store::Store,
    supervise::TICK,
};

/// The hidden verb.
pub const VERB: &str = "stand-in";

/// The word for: the host is being followed.
const READY: u8 = b'r';

/// A stand-in, as the supervisor sees it. It ends when this is dropped.
#[derive(Debug)]
pub struct StandIn {
    process: Apart,
    ready: bool,
}

impl StandIn {
    /// Starts one for the fence of that name. Must be called from the first thread, within a tokio runtime, with
    /// the signals of a terminal blocked.
    ///
    /// # Errors
    /// If there can be no process.
    pub fn start(fence: &str) -> Result<Self> {
        Ok(Self {
            process: start_apart(&[VERB, "--", fence])?,
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
            Told::Byte(READY) => self.ready = true,
            Told::Byte(other) => bail!("it says {other:#04x}"),
            Told::Nothing => bail!("it has ended"),
            Told::Failed(error) => return Err(anyhow!(error).context("it cannot be executed")),
        }
        Ok(())
    }
}

/// Follows for the fence `name`, until nobody holds the other end of standard input; says on standard output when
/// it begins to. Must be called within a tokio runtime.
///
/// # Errors
/// If it cannot begin. What fails later is said, and tried again.
pub async fn follow(name: &str, paths: &Paths) -> Result<()> {
    let pins = Pins::new(&paths.bpffs).directory(name);
    let store = Store::new(&paths.run, name, &pins);
    let mut follower = Follower::in_place_of_supervisor(store, &pins, &paths.resolv_conf)?;
    let mut aside = say::never_wait()?;
    let supervisor = readable(io::stdin()).context("cannot poll standard input")?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is due at once. What the supervisor has not published yet is in force before the word is given;
    // if it cannot be published, the supervisor could not either.
    tick.tick().await;
    follower.tick(&mut aside).await;
    let mut stdout = io::stdout();
    stdout
        .write_all(&[READY])
        .and_then(|()| stdout.flush())
        .context("cannot tell the supervisor")?;
    loop {
        tokio::select! {
            ended = ended(&supervisor) => return ended,
            changed = follower.changed() => follower.keep_up(changed, &mut aside).await,
            _ = tick.tick() => follower.tick(&mut aside).await,
        }
    }
}

/// Waits until nobody holds the other end: nothing is ever written there.
async fn ended(supervisor: &AsyncFd<io::Stdin>) -> Result<()> {
    let ended = supervisor.readable().await;
    ended
        .map(drop)
        .context("cannot wait for the end of the supervisor")
}
