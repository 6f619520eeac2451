//! The signals that reach the supervisor, and what to do about each.

use std::{collections::VecDeque, fs, io};

use anyhow::{Context, Result};
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd, siginfo},
};
use tokio::io::unix::AsyncFd;

use crate::{base::readable::readable, launch::dispositions::Reignored};

/// Signals that are meant for the command.
const FOR_THE_COMMAND: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// Signals by which a terminal stops a job. They must not stop the supervisor: it stops itself, along with the
/// command, once somebody else follows the host's addresses (`job.rs`).
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// What a signal asks of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A child has ended, stopped or gone on.
    Child,
    /// Pass it on to the command.
    PassOn(Signal),
    /// Open the logs anew (SIGUSR1).
    Reopen,
    /// The terminal sent it to the whole process group of this process: the command got it too if it is in that.
    Shared(Signal),
    /// The job is to stop.
    Stop {
        /// How.
        signal: Signal,
        /// Whether the terminal sent it to the whole process group.
        shared: bool,
    },
}

impl Received {
    /// The signal, if it is one that ends a start.
    #[must_use]
    pub fn ending(self) -> Option<Signal> {
        match self {
            Self::PassOn(signal) | Self::Shared(signal) => Some(signal),
            Self::Child | Self::Reopen | Self::Stop { .. } => None,
        }
    }
}

/// The signals are blocked, rather than handled, so that the command inherits what the caller had
/// set for each.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    received: SigSet,
    before: SigSet,
    reignored: Reignored,
}

impl Blocked {
    /// Blocks them. Must come before the first thread: one that has them open would take them, and
    /// end the process.
    ///
    /// # Errors
    /// If the mask cannot be changed or read.
    pub fn new() -> Result<Self> {
        let ignored = ignored().context("cannot read the ignored signals")?;
        let mut received = SigSet::empty();
        received.add(Signal::SIGCHLD);
        received.add(Signal::SIGUSR1);
        // What the caller ignores (nohup) is ignored.
        let is_ignored = |signal: &Signal| ignored & (1 << (*signal as i32 - 1)) != 0;
        received.extend(
            FOR_THE_COMMAND
                .into_iter()
                .filter(|signal| !is_ignored(signal)),
        );
        let mut blocked = received;
        // A supervisor in the background writes to the terminal all the same (stty tostop), and may
        // hand it over.
        blocked.add(Signal::SIGTTOU);
        // Where a limit of the caller's cannot be lifted (`child/limits.rs`), the write fails and that is said.
        blocked.add(Signal::SIGXFSZ);
        blocked.add(Signal::SIGXCPU);
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before))
            .context("cannot block signals")?;
        let reignored = Reignored::take_back(ignored)?;
        received.extend(STOPS.into_iter().filter(|signal| !is_ignored(signal)));
        Ok(Self {
            received,
            before,
            reignored,
        })
    }

    /// The mask from before, for the command.
    #[must_use]
    pub fn mask_before(&self) -> SigSet {
        self.before
    }

    /// The signals that the command is to find ignored, and that are not.
    #[must_use]
    pub fn reignored(&self) -> Reignored {
        self.reignored
    }

    /// Starts to receive them. Must be called within a tokio runtime, and before the first thread.
    ///
    /// From here on the terminal does not stop this process any more. Up to here it does: nothing is fenced yet,
    /// and whoever waits for a lock can be put aside with Ctrl-Z.
    ///
    /// # Errors
    /// If the mask cannot be changed, or a signalfd cannot be made or polled.
    pub fn receive(&self) -> Result<Signals> {
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&self.received), None)
            .context("cannot block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let fd = SignalFd::with_flags(&self.received, flags).context("cannot make a signalfd")?;
        Ok(Signals {
            fd: readable(fd).context("cannot poll a signalfd")?,
            early: VecDeque::new(),
        })
    }
}

/// The signals, as a stream.
pub struct Signals {
    fd: AsyncFd<SignalFd>,
    /// What came before there was a command, and is for later.
    early: VecDeque<Received>,
}

impl Signals {
    /// The signal that ends the start, if one has come. To be called last before the command is let go: a key that was
    /// typed before that may have found no command yet. What is not meant to end anything comes with
    /// [`Signals::next`].
    ///
    /// # Errors
    /// What reading the signalfd fails with.
    pub fn end_of_start(&mut self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.fd.get_mut().read_signal()? {
            let received = sort(&info);
            if let Some(signal) = received.ending() {
                return Ok(Some(signal));
            }
            self.keep(received);
        }
        Ok(None)
    }

    /// Waits for a signal that ends the start. What is not meant to end anything comes with [`Signals::next`]. Nothing
    /// is lost if it is not awaited to its end.
    ///
    /// # Errors
    /// What reading the signalfd fails with.
    pub async fn ending(&mut self) -> io::Result<Received> {
        loop {
            let received = self.read().await?;
            if received.ending().is_some() {
                return Ok(received);
            }
            self.keep(received);
        }
    }

    /// Takes in what has come by the time that the command has begun: a stop that came before was undone, as the
    /// start waits for the command.
    ///
    /// # Errors
    /// What reading the signalfd fails with.
    pub fn have_begun(&mut self) -> io::Result<()> {
        while let Some(info) = self.fd.get_mut().read_signal()? {
            self.keep(sort(&info));
        }
        Ok(())
    }

    /// Has [`Signals::next`] return this first.
    pub fn put_back(&mut self, received: Received) {
        self.early.push_front(received);
    }

    /// Keeps what came before the command had begun. A command that stops for it twice has stopped once.
    fn keep(&mut self, received: Received) {
        self.early.push_back(match received {
            Received::Stop { signal, .. } => Received::Stop {
                signal,
                shared: false,
            },
            other => other,
        });
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// What reading the signalfd fails with.
    pub async fn next(&mut self) -> io::Result<Received> {
        if let Some(early) = self.early.pop_front() {
            return Ok(early);
        }
        self.read().await
    }

    async fn read(&mut self) -> io::Result<Received> {
        loop {
            let mut ready = self.fd.readable_mut().await?;
            let read = ready.try_io(|fd| {
                fd.get_mut()
                    .read_signal()?
                    .ok_or(io::ErrorKind::WouldBlock.into())
            });
            match read {
                Ok(Ok(info)) => return Ok(sort(&info)),
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

fn signal(info: &siginfo) -> Option<Signal> {
    let number = i32::try_from(info.ssi_signo).ok()?;
    Signal::try_from(number).ok()
}

fn sort(info: &siginfo) -> Received {
    match signal(info) {
        Some(Signal::SIGCHLD) | None => Received::Child,
        Some(Signal::SIGUSR1) => Received::Reopen,
        // A process sent it, and to this one; or else the kernel did, for a key or a hang-up, to
        // the whole foreground process group (si_code, sigaction(2)).
        Some(signal) => match (STOPS.contains(&signal), info.ssi_code > 0) {
            (true, shared) => Received::Stop { signal, shared },
            (false, false) => Received::PassOn(signal),
            (false, true) => Received::Shared(signal),
        },
    }
}

/// The signals this process ignores, a bit each (proc_pid_status(5)).
fn ignored() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .context("no SigIgn in /proc/self/status")?;
    u64::from_str_radix(field.trim(), 16).context("an odd SigIgn in /proc/self/status")
}
