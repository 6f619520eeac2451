//! Rules for a while (`set --for`): a process of qfence takes them back at their time. It needs no supervisor, so it also does
//! that for an orphan. Its clock includes suspend (CLOCK_BOOTTIME).

use std::{
    io::{self, Write as _},
    mem::discriminant,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::time::timeout;

use super::dead_man;
use crate::{
    base::{
        clock::since_boot,
        console::{self, notify},
        paths::Paths,
    },
    fence::{hierarchy::Hierarchy, registry::Fences},
    launch::child::{Detached, Lifetime, Lifted, StartReport, start_detached},
    policy::Policy,
};

/// The hidden verb.
pub const VERB: &str = "timer";

/// The message that the timer is set.
const READY: u8 = b'r';

/// How long it may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// The time between two attempts to take a rule back.
const PAUSE: Duration = Duration::from_secs(1);

/// The time between two attempts to end what the policy without it denies. Each publishes the policy again.
const PAUSE_OF_ENDING: Duration = Duration::from_secs(10);

/// How much later than a rule's time a supervisor does the work of the process, which root may have ended.
const OVERDUE: Duration = Duration::from_secs(2);

/// The time between two such starts.
const AGAIN: Duration = Duration::from_secs(10);

/// Why rules whose time is over were not taken back, or not all that they had allowed.
#[derive(Debug, thiserror::Error)]
pub enum NotTakenBack {
    /// The policy still has the rules.
    #[error("rules whose time is over are still in force")]
    Rules(#[source] anyhow::Error),
    /// The policy has them no more, but connections or addresses of names that they allowed may be left.
    #[error("rules whose time is over were taken back, but not all that they had allowed")]
    Allowed(#[source] anyhow::Error),
}

impl NotTakenBack {
    fn pause(&self) -> Duration {
        match self {
            Self::Rules(_) => PAUSE,
            Self::Allowed(_) => PAUSE_OF_ENDING,
        }
    }
}

/// A timer that was set. Dropping it ends it, unless it was left.
#[derive(Debug)]
pub struct Timer(Detached);

impl Timer {
    /// Starts the process that takes back the rules of a fence whose time is `until` or earlier. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// If it cannot be made, or does not begin.
    pub async fn start(fence: &str, until: u64) -> Result<Self> {
        let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
        let until = format!("--until={until}");
        let stdin = null.into();
        let arguments = [VERB, &until, "--", fence];
        let mut process = start_detached(&arguments, Lifetime::Own { stdin })?;
        let report = timeout(BEGINS_WITHIN, process.first_word()).await;
        match report.context("it does not start")?? {
            StartReport::Byte(READY) => Ok(Self(process)),
            StartReport::Byte(other) => bail!("it has sent {other:#04x}"),
            StartReport::Nothing => bail!("it has ended"),
            StartReport::Failed(error) => Err(anyhow!(error).context("it cannot be executed")),
        }
    }

    /// Lets it outlive this value and this process.
    pub fn leave(self) {
        self.0.leave();
    }
}

/// Waits until a time, in nanoseconds since boot. Then calls `take_back` until it succeeds or the fence is gone.
///
/// # Errors
/// If it cannot begin.
pub fn wait(
    fence: &str,
    until: u64,
    paths: &Paths,
    mut take_back: impl FnMut() -> Result<(), NotTakenBack>,
) -> Result<()> {
    // As the supervisor: the kernel is not to end this process when memory is short. An error is that of the kernel's
    // permission.
    Lifted::lift()?;
    // It may be started in a unit that ends. If it cannot leave that, the supervisor does its work.
    let _ = dead_man::leave(Hierarchy::find(&paths.mountinfo)?.mount());
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC)
        .context("cannot make a timer")?;
    // Relative, because the absolute time of a time namespace is another.
    let left =
        Duration::from_nanos(until.saturating_sub(since_boot()?)).max(Duration::from_nanos(1));
    let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
    timer
        .set(expiration, TimerSetTimeFlags::empty())
        .context("cannot set a timer")?;
    let mut stdout = io::stdout();
    stdout
        .write_all(&[READY])
        .and_then(|()| stdout.flush())
        .context("cannot report that the timer is set")?;
    console::release()?;
    timer.wait().context("cannot wait for the timer")?;
    let mut told = None;
    while exists(fence, paths) {
        let Err(error) = take_back() else {
            break;
        };
        // Each is said once.
        let kind = Some(discriminant(&error));
        let pause = error.pause();
        if told != kind {
            let error = anyhow!(error);
            notify(format_args!(
                "error: the fence {fence}: {error:#}; retrying"
            ));
            told = kind;
        }
        thread::sleep(pause);
    }
    Ok(())
}

fn exists(fence: &str, paths: &Paths) -> bool {
    Fences::look(paths).is_ok_and(|fences| fences.policy_file(fence).path().exists())
}

/// Takes rules back in place of a process that was ended.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// When it was last started, in nanoseconds since boot.
    started: Option<u64>,
}

impl Overdue {
    /// Starts a process if a rule of this policy is overdue. To be called regularly. The process is reaped like any child.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn look(&mut self, fence: &str, policy: &Policy) -> Result<()> {
        let Some(until) = policy.next_end() else {
            return Ok(());
        };
        let now = Duration::from_nanos(since_boot()?);
        let is_recent = self
            .started
            .is_some_and(|started| now < Duration::from_nanos(started) + AGAIN);
        if now < Duration::from_nanos(until) + OVERDUE || is_recent {
            return Ok(());
        }
        self.started = u64::try_from(now.as_nanos()).ok();
        let until = format!("--until={until}");
        Command::new("/proc/self/exe")
            .args([VERB, &until, "--", fence])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(drop)
            .context("cannot take back rules whose time is over")
    }
}
