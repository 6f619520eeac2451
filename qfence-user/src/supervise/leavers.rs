//! Ends processes that have left the fence's cgroup. A process in the fence cannot write to cgroup files of root, but it
//! can ask others: systemd moves a process of its user on request. Sockets that it makes outside are not fenced.
//!
//! The kernel tells nobody that a process has left. So a thread lists the processes of the cgroup every second.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;
use rustix::process::{Pid as RawPid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    base::{
        clock::since_boot,
        files::bounded,
        message_queue::MessageQueue,
        process::{
            helper::{Apart, Question},
            looks::Looks,
        },
    },
    fence::{cgroup::Cgroup, integrity::is_outside, nested::own_cgroup},
    record::proc,
    supervise::TICK,
};

/// The reaction to a process that leaves the fence's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnLeave {
    /// Kill it, and report it
    Kill,
    /// Report it
    Report,
}

/// More bytes than /proc/PID/cgroup has: a line for each hierarchy.
const MEMBERSHIP: u64 = 64 * 1024;

/// A thread that ends processes that leave. It ends when this value is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts the thread. `command` is a process that was made in the cgroup.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(
        cgroup: Cgroup,
        proc: &Path,
        command: Pid,
        on_leave: OnLeave,
        messages: MessageQueue,
    ) -> Result<Self> {
        let mut members = Members {
            cgroup,
            proc: proc.to_owned(),
            seen: BTreeMap::new(),
            stats: Apart::new(proc),
            on_leave,
            path: path_of(proc, command),
        };
        let (stop, stopped) = channel();
        let run = move || {
            let mut told = false;
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                match members.look(&messages) {
                    Ok(()) => told = false,
                    Err(error) if !told => {
                        messages.notify(format_args!(
                            "error: {error:#}: processes that leave the fence are not ended; retrying"
                        ));
                        told = true;
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = thread::Builder::new()
            .name("qfence-leavers".into())
            .spawn(run);
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread.context("cannot make a thread")?),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic is reported by the panic handler.
            let _ = thread.join();
        }
    }
}

/// The path of a process's cgroup.
fn path_of(proc: &Path, process: Pid) -> Option<PathBuf> {
    let membership = proc.join(process.to_string()).join("cgroup");
    let text = bounded::read(&membership, MEMBERSHIP).ok()?;
    let text = String::from_utf8_lossy(&text);
    own_cgroup(&text).map(PathBuf::from)
}

/// The processes of a fence.
struct Members {
    cgroup: Cgroup,
    proc: PathBuf,
    /// The processes at the last look, each with the time at which it certainly was in the cgroup, in nanoseconds since
    /// boot.
    seen: BTreeMap<i32, u64>,
    stats: Apart,
    on_leave: OnLeave,
    /// The path of the cgroup in /proc/PID/cgroup, as far as it could be read.
    path: Option<PathBuf>,
}

impl Members {
    /// Ends the processes that have left since the last look.
    fn look(&mut self, messages: &MessageQueue) -> Result<()> {
        let now = since_boot()?;
        let pids = self
            .cgroup
            .pids()
            .context("cannot list the processes of the fence")?;
        let found = pids.into_iter().map(|pid| (pid.as_raw(), now)).collect();
        let mut failed = Ok(());
        let before = std::mem::replace(&mut self.seen, found);
        for (pid, seen) in before {
            // 0 is a process of another pid namespace.
            if pid == 0 || self.seen.contains_key(&pid) {
                continue;
            }
            match self.leaver(pid, seen) {
                Ok(Some(process)) => self.end(pid, process, messages),
                Ok(None) => {}
                Err(error) => {
                    // Looked at again.
                    self.seen.insert(pid, seen);
                    failed = Err(error);
                }
            }
        }
        failed
    }

    /// Whether a text of /proc/PID/cgroup names the fence's cgroup or one below it. Its path as this process sees it is
    /// compared: another cgroup can have the same name under another parent.
    fn is_inside(&self, membership: &str) -> bool {
        match (&self.path, own_cgroup(membership)) {
            (Some(path), Some(found)) => Path::new(found).starts_with(path),
            _ => !is_outside(membership, self.cgroup.directory()),
        }
    }

    /// A process that was in the fence at a time, if it still exists and is outside.
    fn leaver(&mut self, pid: i32, seen: u64) -> Result<Option<OwnedFd>> {
        // From here on it is one process, whatever becomes of its number.
        let process = RawPid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let Some(Ok(process)) = process else {
            return Ok(None);
        };
        let path = self.proc.join(pid.to_string()).join("cgroup");
        let Ok(membership) = bounded::read(&path, MEMBERSHIP) else {
            return Ok(None);
        };
        let membership = String::from_utf8_lossy(&membership);
        if self.is_inside(&membership) {
            return Ok(None);
        }
        // A process that was started later only has the number of one that has ended.
        let stat = self.stats.ask(Question::Stat(pid.unsigned_abs()))?;
        let is_same = proc::identity(&stat).is_some_and(|id| id.is_older_than(seen));
        Ok(is_same.then_some(process))
    }

    fn end(&self, pid: i32, process: OwnedFd, messages: &MessageQueue) {
        let name = Looks::default().name(pid);
        let said = format!(
            "error: {name} has left the fence's cgroup: the sockets that it makes are NOT FENCED"
        );
        let result = match self.on_leave {
            OnLeave::Report => String::new(),
            OnLeave::Kill => match pidfd_send_signal(process, Signal::KILL) {
                Ok(()) => "; it was killed (--on-leave report leaves it)".to_owned(),
                Err(error) => format!("; it cannot be killed: {error}"),
            },
        };
        messages.notify(format_args!("{said}{result}"));
    }
}
