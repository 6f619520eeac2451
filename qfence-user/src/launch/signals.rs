//! The signals of the supervisor, and the reaction to each.

use std::{collections::VecDeque, fs, io};

use anyhow::{Context, Result};
use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd, siginfo},
};
use tokio::io::unix::AsyncFd;

use crate::{base::readable::readable, launch::dispositions::Reignored};

/// Signals that are passed on to the command.
const FOR_THE_COMMAND: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// The signals with which a terminal stops a job. They must not stop the supervisor directly: it stops itself together
/// with the command, after another process has taken over following the host's addresses (`job.rs`).
const STOPS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// The reaction that a signal requests from the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A child has ended, stopped or continued.
    Child,
    /// Pass the signal on to the command.
    PassOn(Signal),
    /// Reopen the logs (SIGUSR1).
    Reopen,
    /// A signal that the terminal sent to the whole process group of this process, including the command if it is in
    /// that group.
    Shared(Signal),
    /// Stop the job.
    Stop {
        /// The signal that requested it.
        signal: Signal,
        /// Whether the terminal sent it to the whole process group.
        shared: bool,
    },
}

impl Received {
    /// The signal, if it ends a start.
    #[must_use]
    pub fn ending(self) -> Option<Signal> {
        match self {
            Self::PassOn(signal) | Self::Shared(signal) => Some(signal),
            Self::Child | Self::Reopen | Self::Stop { .. } => None,
        }
    }
}

/// Blocked signals. They are blocked instead of handled, so that the command inherits the caller's disposition of each.
#[derive(Clone, Copy, Debug)]
pub struct Blocked {
    received: SigSet,
    before: SigSet,
    reignored: Reignored,
}

impl Blocked {
    /// Blocks the signals. Must be called before the first thread is started: a thread that does not block them would
    /// receive them, and end the process.
    ///
    /// # Errors
    /// If the mask cannot be changed or read.
    pub fn new() -> Result<Self> {
        let ignored = ignored().context("cannot read the ignored signals")?;
        let mut received = SigSet::empty();
        received.add(Signal::SIGCHLD);
        received.add(Signal::SIGUSR1);
        // Signals that the caller ignores (nohup) stay ignored.
        let is_ignored = |signal: &Signal| has_bit(ignored, *signal);
        received.extend(
            FOR_THE_COMMAND
                .into_iter()
                .filter(|signal| !is_ignored(signal)),
        );
        let mut blocked = received;
        // A supervisor in the background must be able to write to the terminal (stty tostop), and to change its
        // foreground group.
        blocked.add(Signal::SIGTTOU);
        // If the caller's file size limit cannot be lifted (`child/limits.rs`), the write fails, and the error is
        // reported.
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

    /// The previous signal mask, for the command.
    #[must_use]
    pub fn mask_before(&self) -> SigSet {
        self.before
    }

    /// The signals that the command must ignore, but qfence does not.
    #[must_use]
    pub fn reignored(&self) -> Reignored {
        self.reignored
    }

    /// Starts to receive the signals. Must be called within a tokio runtime, and before the first thread is started.
    ///
    /// From now on, the terminal does not stop this process any more. Until now it does: nothing is fenced yet, and a
    /// process that waits for a lock can be stopped with Ctrl-Z.
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

/// A stream of signals.
pub struct Signals {
    fd: AsyncFd<SignalFd>,
    /// Signals that arrived before the command existed, and are handled later.
    early: VecDeque<Received>,
}

impl Signals {
    /// The signal that ends the start, if one has arrived. To be called last before the command is executed: at an
    /// earlier key press there may have been no command yet. Other signals are returned by [`Signals::next`].
    ///
    /// # Errors
    /// The errors of reading the signalfd.
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

    /// Waits for a signal that ends the start. Other signals are returned by [`Signals::next`]. Cancel-safe.
    ///
    /// # Errors
    /// The errors of reading the signalfd.
    pub async fn ending(&mut self) -> io::Result<Received> {
        loop {
            let received = self.read().await?;
            if received.ending().is_some() {
                return Ok(received);
            }
            self.keep(received);
        }
    }

    /// Receives the signals that have arrived before the command was executed. Stops among them were undone, because
    /// the start continues a stopped child.
    ///
    /// # Errors
    /// The errors of reading the signalfd.
    pub fn have_begun(&mut self) -> io::Result<()> {
        while let Some(info) = self.fd.get_mut().read_signal()? {
            self.keep(sort(&info));
        }
        Ok(())
    }

    /// Makes [`Signals::next`] return this first.
    pub fn put_back(&mut self, received: Received) {
        self.early.push_front(received);
    }

    /// Keeps a signal that arrived before the command was executed. Several stops become one.
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
    /// The errors of reading the signalfd.
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
        // `si_code` shows the sender (sigaction(2)): either a process, which sent it to this process only; or the
        // kernel, for a key or a hang-up, which sent it to the whole foreground process group.
        Some(signal) => match (STOPS.contains(&signal), info.ssi_code > 0) {
            (true, shared) => Received::Stop { signal, shared },
            (false, false) => Received::PassOn(signal),
            (false, true) => Received::Shared(signal),
        },
    }
}

/// The signals that another process of the job passes on to this one (`front.rs`), and SIGCHLD. `ignored` has a bit for each
/// ignored signal: these stay ignored.
pub(super) fn passed_on(ignored: u64) -> SigSet {
    let is_received = |signal: &Signal| *signal == Signal::SIGCHLD || !has_bit(ignored, *signal);
    FOR_THE_COMMAND
        .into_iter()
        .chain(STOPS)
        .chain([Signal::SIGCHLD, Signal::SIGUSR1])
        .filter(is_received)
        .collect()
}

fn has_bit(ignored: u64, signal: Signal) -> bool {
    ignored & (1 << (signal as i32 - 1)) != 0
}

/// The signals that this process ignores, one bit each (proc_pid_status(5)).
pub(super) fn ignored() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .context("no SigIgn in /proc/self/status")?;
    u64::from_str_radix(field.trim(), 16).context("an invalid SigIgn in /proc/self/status")
}
