//! Job control: when the command stops, the supervisor stops too, so that the shell gets the terminal back. When the
//! supervisor continues, so does the command. Meanwhile a stand-in follows the host.

use std::{
    fs::{File, OpenOptions},
    future::pending,
    io,
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    libc::{ENXIO, O_NOCTTY, O_NONBLOCK},
    sys::signal::{Signal, killpg, raise},
    unistd::{Pid, getpgid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    launch::stops::{has_gone_on, is_stopped, take_stop},
    supervise::stand_in::{Orders, StandIn},
};

/// A stop that lasts less than this is not shown to the shell.
const STOP_SETTLES: Duration = Duration::from_millis(20);

/// How long a stand-in may take to begin. It does not wait for processes in the fence.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// The pause after a stop that could not be prepared.
const PAUSE: Duration = Duration::from_secs(1);

/// If the command stops within this time after the supervisor was asked to stop, both stops have the same cause.
const ASKED_LASTS: Duration = Duration::from_secs(5);

/// The command as a job of the shell.
///
/// The supervisor stops together with the command if the command is in the terminal's foreground, or if a signal
/// stopped the whole job. If the command is in the background and stops alone, for instance by `kill -STOP`, the
/// supervisor continues.
#[derive(Debug)]
pub struct Job {
    orders: Orders,
    command: Pid,
    /// The time when the supervisor was also asked to stop.
    asked: Option<Instant>,
    /// Set while a stop is being prepared.
    leaving: Option<Leaving>,
    /// The earliest time for another attempt after a stop could not be prepared. So a command that stops again and
    /// again does not keep the supervisor busy.
    not_before: Instant,
    /// Whether it was reported that this stop cannot be prepared.
    told: bool,
}

#[derive(Debug)]
struct Leaving {
    stand_in: StandIn,
    settled: Instant,
    too_late: Instant,
}

impl Job {
    /// A job for the command of a fence. `orders` are for its stand-in.
    #[must_use]
    pub fn new(orders: Orders) -> Self {
        Self {
            command: orders.command,
            orders,
            asked: None,
            leaving: None,
            not_before: Instant::now(),
            told: false,
        }
    }

    /// Whether the command also gets signals that the terminal sends to the process group of this process.
    #[must_use]
    pub fn shares_keys(&self) -> bool {
        getpgid(Some(self.command)).is_ok_and(|theirs| theirs == getpgrp())
    }

    /// Notes that the whole job is to stop, because the supervisor has received such a signal.
    pub fn ask_to_stop(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// The children of this process that are reaped elsewhere: the command, and a stand-in.
    #[must_use]
    pub fn children(&self) -> Vec<Pid> {
        let stand_in = self.leaving.as_ref().map(|leaving| leaving.stand_in.pid());
        [self.command].into_iter().chain(stand_in).collect()
    }

    /// Starts a stand-in if the command is stopped and the supervisor is to stop too. To be called when the command may
    /// have stopped, and regularly, because a stopped job can move to the foreground.
    ///
    /// # Errors
    /// If no stand-in can be started; see [`Job::stop`]. Returned only once for each stop.
    pub fn look(&mut self) -> Result<()> {
        if self.leaving.is_some() {
            return Ok(());
        }
        if !is_stopped(self.command) {
            self.told = false;
            return Ok(());
        }
        let is_due = self.is_asked() || Group::of(self.command).has_terminal();
        if !is_due || Instant::now() < self.not_before {
            return Ok(());
        }
        match StandIn::start(&self.orders) {
            Ok(stand_in) => {
                let now = Instant::now();
                self.leaving = Some(Leaving {
                    stand_in,
                    settled: now + STOP_SETTLES,
                    too_late: now + BEGINS_WITHIN,
                });
                Ok(())
            }
            Err(error) => self.stay(error),
        }
    }

    fn is_asked(&self) -> bool {
        self.asked
            .is_some_and(|asked| asked.elapsed() < ASKED_LASTS)
    }

    /// Waits until a stop is prepared, or its preparation has failed. To be followed by [`Job::stop`]. Cancel-safe.
    pub async fn prepared(&mut self) -> Result<()> {
        let Some(leaving) = &mut self.leaving else {
            return pending().await;
        };
        timeout_at(leaving.too_late, leaving.stand_in.ready())
            .await
            .context("it does not start")??;
        sleep_until(leaving.settled).await;
        Ok(())
    }

    /// Stops this process, if the command is still stopped. Returns after both were continued and the stand-in has
    /// ended. The caller must then check the effects of the stand-in.
    ///
    /// # Errors
    /// If `prepared` is an error. Then the host would not be followed, so this process does not stop. If the command
    /// has the terminal, it is continued, because otherwise no process would use the terminal. If it is in the
    /// background, it stays stopped, and the preparation is tried again. Also if this process cannot stop itself.
    pub fn stop(&mut self, prepared: Result<()>) -> Result<()> {
        let leaving = self.leaving.take();
        if let Err(error) = prepared {
            drop(leaving);
            return self.stay(error);
        }
        if take_stop(self.command) {
            let group = Group::of(self.command);
            raise(Signal::SIGSTOP).context("cannot stop together with the command")?;
            self.asked = None;
            // A shell continues the whole process group of a job. If the command has stopped again since then, that is
            // another stop, which a second SIGCONT would undo, for the command and for this process (`prepare_signal`
            // in kernel/signal.c).
            if group.theirs != group.own || !has_gone_on(self.command) {
                group.go_on();
            }
        }
        Ok(())
    }

    /// Does not stop this process. Returns the error unless it was already reported.
    fn stay(&mut self, error: anyhow::Error) -> Result<()> {
        let group = Group::of(self.command);
        let goes_on = group.has_terminal();
        self.not_before = Instant::now() + PAUSE;
        if goes_on {
            group.go_on();
        } else {
            // The preparation is tried again while the command is stopped.
            self.ask_to_stop();
        }
        if std::mem::replace(&mut self.told, !goes_on) {
            return Ok(());
        }
        let what = if goes_on {
            "the command was stopped and is continued"
        } else {
            "the command is stopped, but the shell does not notice"
        };
        Err(error.context(format!(
            "{what}: while this process is stopped, nothing would follow the host's addresses, because the stand-in \
             cannot be started"
        )))
    }
}

/// The process group of the command, and the terminal.
struct Group {
    /// The controlling terminal, independent of the standard streams. Without one (ENXIO) there is no job control.
    terminal: io::Result<File>,
    own: Pid,
    theirs: Pid,
}

impl Group {
    fn of(command: Pid) -> Self {
        let own = getpgrp();
        Self {
            // Non-blocking: opening a serial line without a carrier would wait for one, and the command can remove the
            // carrier.
            terminal: OpenOptions::new()
                .read(true)
                .custom_flags(O_NOCTTY | O_NONBLOCK)
                .open("/dev/tty"),
            own,
            theirs: getpgid(Some(command)).unwrap_or(own),
        }
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.terminal.as_ref().ok()?).ok()
    }

    /// Whether the foreground process group of the terminal is that of this process or the command. True also if that
    /// is not known.
    fn has_terminal(&self) -> bool {
        match &self.terminal {
            Ok(_) => [Some(self.own), Some(self.theirs)].contains(&self.foreground()),
            Err(error) => error.raw_os_error() != Some(ENXIO),
        }
    }

    /// Continues the command.
    fn go_on(&self) {
        // The shell has continued the job. In the foreground, the terminal belongs to the group of this process. A
        // command in a group of its own, such as a shell, gets the terminal from here.
        if self.theirs != self.own
            && self.foreground() == Some(self.own)
            && let Ok(terminal) = &self.terminal
        {
            let _ = tcsetpgrp(terminal, self.theirs);
        }
        // The command may have ended while both were stopped.
        let _ = killpg(self.theirs, Signal::SIGCONT);
    }
}
