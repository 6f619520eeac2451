//! A child process that does not outlive its test, however the test ends.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

/// Sends a signal to a process that the test knows by its id only.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    kill(pid, signal).with_context(|| format!("send {signal} to {pid}"))
}

/// A running child, in its own process group. Dropping it ends the whole group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. If the test itself is killed, the child gets SIGTERM, unless it has changed its user since.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: prctl is a plain system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let name = format!("{command:?}");
        let child = spawn_on_lasting_thread(command).with_context(|| format!("start {name}"))?;
        Ok(Self { child, ended: None })
    }

    /// The process id of the child.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal to the child only, not to its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("send {signal}"))
    }

    /// Waits until the child has ended; `None` if it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() {
            if self.has_ended()? {
                // The rest of the group must be killed before the id of the leader can be reused.
                let _ = killpg(self.pid()?, Signal::SIGKILL);
                self.ended = Some(self.child.wait().context("wait for the child")?);
            } else if Instant::now() >= deadline {
                return Ok(None);
            } else {
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(self.ended)
    }

    /// Sends SIGTERM to the child, and SIGKILL if it does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait(Duration::from_secs(3))? {
            return Ok(status);
        }
        killpg(self.pid()?, Signal::SIGKILL).context("kill the process group")?;
        self.wait(Duration::from_secs(10))?
            .context("the child does not even die of SIGKILL")
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(
            i32::try_from(self.child.id()).context("a process id is positive")?,
        ))
    }

    fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid()?), flags).context("look after the child")?;
        Ok(status != WaitStatus::StillAlive)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A destructor cannot report an error. The child's death signal is the last resort.
        let _ = self.stop();
    }
}

/// Spawns on a thread that lives as long as the test process: the kernel sends the death signal when the thread that
/// forked ends.
fn spawn_on_lasting_thread(command: Command) -> std::io::Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = mpsc::channel();
    let gone = |_| std::io::Error::other("the spawning thread is gone");
    spawner
        .send((command, answer))
        .map_err(|_| std::io::Error::other("no spawning thread"))?;
    result.recv().map_err(gone)?
}
