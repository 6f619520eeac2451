//! `attach --restart`: follows a target that is started anew, in a new cgroup.
//!
//! When the cgroup is gone and its fence removed, this process executes itself with a hidden option, and so begins anew with
//! nothing but its options and its signal mask. Then it waits for the target.

use std::{
    convert::Infallible,
    env,
    ffi::CString,
    io,
    os::{fd::AsFd as _, unix::ffi::OsStringExt as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Error, Result, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, execv},
};

use super::{Outcome, run_on};
use crate::{
    base::{
        clock::since_boot,
        console::{flush, notify},
        inherited,
        interruptible::Interrupted,
        paths::Paths,
    },
    cli::{Again, Attach},
    commands::require_root,
    fence::hierarchy::Hierarchy,
    workload::{self, Target, is_not_running},
};

/// The hidden option that a process gets that waits for its target.
const AGAIN: &str = "--again";

/// How often the target is looked for: always, and for a while after a cgroup has appeared.
const SLOW: Duration = Duration::from_secs(1);
const BRISK: Duration = Duration::from_millis(50);
const BRISK_LOOKS: u32 = 40;

/// How often it is tried to fence a target that runs again.
const TRIES: u32 = 10;

/// After how many looks with the same error it is said.
const SAID_AFTER: u32 = 3;

/// The signals that end this process.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// Fences a target, and each time that it is started anew.
///
/// # Errors
/// If the fence cannot be made at first, or ten times when the target runs again.
pub(super) fn run(options: &Attach, target: Option<&Target>, paths: &Paths) -> Result<()> {
    require_root()?;
    let target = target.filter(|target| {
        matches!(
            target,
            Target::Unit(_) | Target::Container(_) | Target::Domain(_)
        )
    });
    let target = target.context(
        "--restart follows a unit, a container or a domain: give --unit, --container or --domain",
    )?;
    let open = match &options.again {
        None => None,
        Some(again) => match wait(target, again, paths)? {
            None => return Ok(()),
            Some(since) => Some(since),
        },
    };
    let failed = options.again.as_ref().map_or(0, |again| again.failed);
    match run_on(options, Some(target), &[], open, paths) {
        Ok(Outcome::PlaceGone { name, cgroup, seen }) => {
            notify("it is fenced again when it is started anew");
            let again = Again {
                name,
                cgroup,
                since: seen,
                failed: 0,
            };
            execute(&again).map(|never| match never {})
        }
        Ok(Outcome::Over) => Ok(()),
        Err(error) => {
            let interrupted = error.downcast_ref::<Interrupted>().is_some();
            let (Some(again), Some(since)) = (&options.again, open) else {
                return Err(error);
            };
            if interrupted || failed >= TRIES {
                return Err(error.context("NOT FENCED: the target runs again"));
            }
            notify(format_args!(
                "NOT FENCED: the target runs again: {error:#}. It is tried again"
            ));
            let again = Again {
                since,
                failed: failed + 1,
                ..again.clone()
            };
            execute(&again).map(|never| match never {})
        }
    }
}

/// Executes this program anew, with the same options. Blocked signals stay blocked, and wait (execve(2)).
fn execute(again: &Again) -> Result<Infallible> {
    let mut words = Vec::new();
    let mut is_value = false;
    for word in env::args_os() {
        // Those of the last time.
        if is_value || word == AGAIN {
            is_value = !is_value;
            continue;
        }
        words.push(CString::new(word.into_vec())?);
    }
    words.push(CString::new(AGAIN)?);
    words.push(CString::new(serde_json::to_string(again)?)?);
    flush();
    execv(c"/proc/self/exe", &words).context("cannot execute qfence anew")
}

/// Waits until the target runs. Returns a time, in nanoseconds since boot, before which its cgroup did not exist; `None` if a
/// signal has ended the wait.
fn wait(target: &Target, again: &Again, paths: &Paths) -> Result<Option<u64>> {
    inherited::close_all_but(0)?;
    let signals = Ending::new()?;
    // Without it, the target is noticed a little later.
    let appearing = Appearing::new(again, paths).ok();
    let mut since = again.since;
    let mut brisk = 0_u32;
    let mut said = Repeated::default();
    if again.failed > 0 && signals.arrives(SLOW, None)? == Woken::Signal {
        return Ok(None);
    }
    loop {
        reap();
        let began = since_boot()?;
        match workload::find(target, paths) {
            Ok(_) => return Ok(Some(since)),
            Err(error) if is_not_running(&error) => since = began,
            Err(error) => said.say(&error),
        }
        let pause = if brisk > 0 { BRISK } else { SLOW };
        brisk = brisk.saturating_sub(1);
        match signals.arrives(pause, appearing.as_ref())? {
            Woken::Signal => return Ok(None),
            Woken::Cgroup => {
                // A look takes a process of systemd's, so there is not one for each cgroup of others.
                if brisk > 0 && signals.arrives(BRISK, None)? == Woken::Signal {
                    return Ok(None);
                }
                brisk = BRISK_LOOKS;
            }
            Woken::Time => {}
        }
    }
}

/// Reaps helper processes that the process had before it executed itself.
fn reap() {
    while let Ok(status) = waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// What has ended a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Signal,
    Cgroup,
    Time,
}

/// The signals that end the wait. They stay blocked, so that none is lost while this process executes itself.
struct Ending(SignalFd);

impl Ending {
    fn new() -> Result<Self> {
        let set: SigSet = ENDING.into_iter().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context("cannot block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&set, flags).context("cannot make a signalfd")?;
        Ok(Self(fd))
    }

    fn arrives(&self, pause: Duration, appearing: Option<&Appearing>) -> Result<Woken> {
        let mut polled = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        polled.extend(appearing.map(|one| PollFd::new(one.0.as_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(pause).map_err(io::Error::other)?;
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the target"),
        }
        let ready = |index: usize| {
            let polled = polled.get(index).and_then(PollFd::any);
            polled.unwrap_or(false)
        };
        if ready(0) {
            return Ok(Woken::Signal);
        }
        if ready(1) {
            if let Some(appearing) = appearing {
                appearing.drain();
            }
            return Ok(Woken::Cgroup);
        }
        Ok(Woken::Time)
    }
}

/// Notices new cgroups beside the one that the target had.
struct Appearing(Inotify);

impl Appearing {
    fn new(again: &Again, paths: &Paths) -> Result<Self> {
        let hierarchy = Hierarchy::find(&paths.mountinfo)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONLYDIR;
        let mut watched = 0;
        // The cgroup above it may be made anew as well.
        for above in again.cgroup.ancestors().skip(1) {
            watched += usize::from(
                inotify
                    .add_watch(&hierarchy.mount().join(above), flags)
                    .is_ok(),
            );
            if above == Path::new("") || watched > 1 {
                break;
            }
        }
        ensure!(watched > 0, "no cgroup can be watched");
        Ok(Self(inotify))
    }

    /// Forgets the new cgroups so far.
    fn drain(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

/// An error that is said once, after it was met several times in a row.
#[derive(Default)]
struct Repeated {
    text: String,
    times: u32,
}

impl Repeated {
    fn say(&mut self, error: &Error) {
        let text = format!("{error:#}");
        if text != self.text {
            *self = Self { text, times: 0 };
        }
        self.times = self.times.saturating_add(1);
        if self.times == SAID_AFTER {
            notify(format_args!("cannot find the target: {}", self.text));
        }
    }
}
