//! The dead man's switch (`--die-with-supervisor`): a process of qfence that ends everything in the fence when the supervisor
//! has ended in any way. It needs no help from the supervisor, and no process of a user can stop it.
//!
//! It is in a session and a cgroup of its own: systemd kills all processes in the cgroup of a unit at the same time.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tokio::time::timeout;

use crate::{
    base::{
        console::{self, notify},
        paths::Paths,
    },
    fence::{cgroup::Cgroup, guard::KILL_PATIENCE, hierarchy::Hierarchy, registry::Fences},
    launch::child::{Detached, Lifetime, StartReport, start_detached},
};

/// The hidden verb.
pub const VERB: &str = "dead-man";

/// The message that it watches.
const READY: u8 = b'r';

/// The message that it watches, and is in the cgroup of its maker.
const READY_INSIDE: u8 = b'i';

/// How long it may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// The root of systemd's hierarchy of cgroup v1, on hosts that have both versions (systemd's CGROUP_DELEGATION.md).
const SYSTEMD_V1: &str = "/sys/fs/cgroup/systemd/cgroup.procs";

/// The switch, from the side of the supervisor. Dropping it ends it, and spares the fence.
#[derive(Debug)]
pub struct DeadMan {
    fence: String,
    process: Detached,
}

/// A switch that was started.
#[derive(Debug)]
pub struct Started {
    /// The switch.
    pub dead_man: DeadMan,
    /// Whether it is in the cgroup of this process, and ends with it if everything in that is killed.
    pub is_inside: bool,
}

impl DeadMan {
    /// Starts the switch for a fence, and waits until it watches. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be made, or does not begin.
    pub async fn start(fence: &str) -> Result<Started> {
        let mut dead_man = Self::begin(fence)?;
        let report = timeout(BEGINS_WITHIN, dead_man.process.first_word()).await;
        match report.context("it does not start")?? {
            StartReport::Byte(READY) => Ok(Started {
                dead_man,
                is_inside: false,
            }),
            StartReport::Byte(READY_INSIDE) => Ok(Started {
                dead_man,
                is_inside: true,
            }),
            StartReport::Byte(other) => bail!("it has sent {other:#04x}"),
            StartReport::Nothing => bail!("it has ended"),
            StartReport::Failed(error) => Err(anyhow!(error).context("it cannot be executed")),
        }
    }

    fn begin(fence: &str) -> Result<Self> {
        let own = pidfd_open(getpid(), PidfdFlags::empty());
        let own = own.context("cannot open a descriptor of this process")?;
        let arguments = [VERB, "--", fence];
        Ok(Self {
            fence: fence.to_owned(),
            process: start_detached(&arguments, Lifetime::Own { stdin: own })?,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Starts another one if it has ended. To be called regularly, within a tokio runtime.
    ///
    /// # Errors
    /// If it had ended. The error shows whether there is another one.
    pub fn replace_if_ended(&mut self) -> Result<()> {
        if !self.process.has_ended() {
            return Ok(());
        }
        let ended = "error: the process that ends the fence together with this one has ended";
        match Self::begin(&self.fence) {
            Ok(another) => {
                *self = another;
                bail!("{ended}; another one was started")
            }
            Err(error) => Err(error.context(format!("{ended}, and no other can be started"))),
        }
    }
}

/// Waits until the supervisor has ended, whose pidfd is standard input. Then kills everything in the fence, and clears it.
///
/// # Errors
/// If it cannot begin, or processes do not end.
pub fn watch(fence: &str, paths: &Paths) -> Result<()> {
    let hierarchy = Hierarchy::find(&paths.mountinfo)?;
    let directory = Fences::look(paths)?.place(fence).cgroup().open()?;
    let is_outside = leave(hierarchy.mount()).is_ok();
    report(if is_outside { READY } else { READY_INSIDE });

    let supervisor = io::stdin().as_fd().try_clone_to_owned()?;
    // A caller may wait for the end of its standard error, and the supervisor may go on in the background.
    console::release()?;
    let mut polled = [PollFd::new(supervisor.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the end of the supervisor"),
        }
    }
    // By descriptor: another fence may get the name.
    let cgroup = Cgroup::at(format!("/proc/self/fd/{}", directory.as_raw_fd()).into());
    let ended = cgroup.kill_all(KILL_PATIENCE);
    let cleared = Fences::open(paths)
        .and_then(|fences| fences.lock()?.clear(&mut |note| notify(note)).map(drop));
    ended.and(cleared)
}

/// Reports to the supervisor. If that fails it may have ended already, which is what this process is for. A supervisor that
/// waits for the report in vain ends this process itself.
fn report(state: u8) {
    let mut stdout = io::stdout();
    let _nobody_reads = stdout.write_all(&[state]).and_then(|()| stdout.flush());
}

/// Moves this process to the roots of the hierarchies by which systemd kills.
pub(super) fn leave(mount: &Path) -> Result<()> {
    // "0" is the writing process.
    fs::write(mount.join("cgroup.procs"), "0").context("cannot move to the root cgroup")?;
    match fs::write(SYSTEMD_V1, "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("cannot move to the root of systemd's cgroups")
        }
        _ => Ok(()),
    }
}

/// Fails if a switch ends with the supervisor's cgroup.
///
/// # Errors
/// If it does.
pub fn ensure_outside(started: &Started) -> Result<()> {
    ensure!(
        !started.is_inside,
        "the process that ends the fence cannot leave this cgroup, and is killed with everything in it"
    );
    Ok(())
}
