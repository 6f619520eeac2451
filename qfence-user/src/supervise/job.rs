//! Job control: when the command stops, so does the supervisor, so that the shell gets its terminal
//! back; when it goes on, so does the command. A stand-in follows the host meanwhile.

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

/// A stop that is over by then is none for the shell.
const STOP_SETTLES: Duration = Duration::from_millis(20);

/// How long a stand-in may take to begin. No process in the fence is waited for in it.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);

/// How long before a stop that could not be prepared is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A stop of the command that is seen this long after the supervisor was asked to stop is of the same cause.
const ASKED_LASTS: Duration = Duration::from_secs(5);

/// The command as a job of the shell's.
///
/// The supervisor stops along with a command that is stopped in the terminal's foreground, by whatever, or by a
/// signal that stops the whole job. One that is stopped in the background, by a `kill -STOP` say, stops alone.
#[derive(Debug)]
pub struct Job {
    orders: Orders,
    command: Pid,
    /// When the supervisor was asked to stop, too.
    asked: Option<Instant>,
    /// Set while a stop is being prepared.
    leaving: Option<Leaving>,
    /// When a stop that could not be prepared may be tried again: a command that goes on only to stop again does
    /// not keep the supervisor busy.
    not_before: Instant,
    /// Whether it was said that this stop cannot be prepared.
    told: bool,
}

#[derive(Debug)]
struct Leaving {
    stand_in: StandIn,
    settled: Instant,
    too_late: Instant,
}

impl Job {
    /// The command that runs in a fence, for whose stand-in these are.
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

    /// Whether a key that the terminal makes a signal of for this process's group has reached the command.
    #[must_use]
    pub fn shares_keys(&self) -> bool {
        getpgid(Some(self.command)).is_ok_and(|theirs| theirs == getpgrp())
    }

    /// Notes that the whole job is to stop: the supervisor has got a signal that says so.
    pub fn ask_to_stop(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// The children of this process that are waited for elsewhere: the command, and a stand-in.
    #[must_use]
    pub fn children(&self) -> Vec<Pid> {
        let stand_in = self.leaving.as_ref().map(|leaving| leaving.stand_in.pid());
        [self.command].into_iter().chain(stand_in).collect()
    }

    /// Starts a stand-in if the command is stopped and the supervisor is to stop along. To be called when the
    /// command may have stopped, and every now and then: a job can come to the foreground stopped.
    ///
    /// # Errors
    /// If there can be no stand-in; see [`Job::stop`]. It is an error once for each stop.
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

    /// Waits until a stop is prepared, or that has failed: for [`Job::stop`]. Nothing is lost if it is not
    /// awaited to its end.
    pub async fn prepared(&mut self) -> Result<()> {
        let Some(leaving) = &mut self.leaving else {
            return pending().await;
        };
        timeout_at(leaving.too_late, leaving.stand_in.ready())
            .await
            .context("it does not begin")??;
        sleep_until(leaving.settled).await;
        Ok(())
    }

    /// Stops this process, if the command is still stopped; returns when both are to go on, and the stand-in has
    /// ended. Whatever that did has to be looked at.
    ///
    /// # Errors
    /// If it was not `prepared`. Then nobody would follow, so this process does not stop: a command that has the
    /// terminal goes on, for else nobody would have that; one in the background waits, and is tried again. Or if
    /// the process cannot stop itself.
    pub fn stop(&mut self, prepared: Result<()>) -> Result<()> {
        let leaving = self.leaving.take();
        if let Err(error) = prepared {
            drop(leaving);
            return self.stay(error);
        }
        if take_stop(self.command) {
            let group = Group::of(self.command);
            raise(Signal::SIGSTOP).context("cannot stop along with the command")?;
            self.asked = None;
            // A shell has its job's whole group go on. A stop since then is another one, which a second SIGCONT would
            // undo, for the command and for this process (`prepare_signal` in kernel/signal.c).
            if group.theirs != group.own || !has_gone_on(self.command) {
                group.go_on();
            }
        }
        Ok(())
    }

    /// Does not stop along. What it fails with if that was not said yet.
    fn stay(&mut self, error: anyhow::Error) -> Result<()> {
        let group = Group::of(self.command);
        let goes_on = group.has_terminal();
        self.not_before = Instant::now() + PAUSE;
        if goes_on {
            group.go_on();
        } else {
            // Tried again as long as it is stopped.
            self.ask_to_stop();
        }
        if std::mem::replace(&mut self.told, !goes_on) {
            return Ok(());
        }
        let what = if goes_on {
            "the command was stopped and goes on"
        } else {
            "the command is stopped, and the shell does not see it"
        };
        Err(error.context(format!(
            "{what}: while this process is stopped nobody would follow the host's addresses, for              the process that does so cannot be started"
        )))
    }
}

/// The process group of the command, and the terminal.
struct Group {
    /// The controlling terminal, wherever the standard streams lead. Without one (ENXIO) there is no job.
    terminal: io::Result<File>,
    own: Pid,
    theirs: Pid,
}

impl Group {
    fn of(command: Pid) -> Self {
        let own = getpgrp();
        Self {
            // A serial line without a carrier, which the command can make of one that has, would be waited for.
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

    /// Whether the terminal is in the hands of this process or the command; also if that cannot be told.
    fn has_terminal(&self) -> bool {
        match &self.terminal {
            Ok(_) => [Some(self.own), Some(self.theirs)].contains(&self.foreground()),
            Err(error) => error.raw_os_error() != Some(ENXIO),
        }
    }

    /// Has the command go on.
    fn go_on(&self) {
        // The shell has brought the job back: to the foreground, where the terminal is this group's.
        // A command in a group of its own (a shell, say) gets it from here.
        if self.theirs != self.own
            && self.foreground() == Some(self.own)
            && let Ok(terminal) = &self.terminal
        {
            let _ = tcsetpgrp(terminal, self.theirs);
        }
        // It may have ended while both were stopped.
        let _ = killpg(self.theirs, Signal::SIGCONT);
    }
}
