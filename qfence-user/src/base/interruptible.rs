//! Waits in system calls that may block for ever, while signals are blocked.
//!
//! Before the command exists, the supervisor blocks the signals that it will pass on to it. Waits until then must
//! still end with such a signal.

use std::{
    io::{self, pipe},
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use crate::base::console::notify;

/// How long a wait takes before it is reported.
const SILENCE: Duration = Duration::from_secs(2);

/// The signals that end a process by default, and that people send.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// A signal ended a wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{signal} has ended the wait {what}")]
pub struct Interrupted {
    /// The signal.
    pub signal: Signal,
    /// The object of the wait, as words after "wait".
    pub what: String,
}

/// Why a wait failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// A signal ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The thread that made the call panicked.
    #[error("a thread has failed")]
    Thread,
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// The operation, as a verb and its object.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl WaitError {
    /// Converts to an error in which a command finds [`Interrupted`] by its type.
    #[must_use]
    pub fn into_anyhow(self) -> anyhow::Error {
        match self {
            Self::Interrupted(interrupted) => interrupted.into(),
            other => other.into(),
        }
    }
}

fn cannot<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> WaitError {
    move |error| WaitError::System {
        operation,
        source: error.into(),
    }
}

/// Waits for a call to return. After two seconds a line reports "waiting" and the words of `what`. An ending signal
/// that this thread blocks ends the wait; other signals act as usual.
///
/// The call runs on a thread of its own. If the wait ends early, that thread is left behind and its result is
/// dropped.
///
/// # Errors
/// [`WaitError::Interrupted`], or if no thread can be started.
pub fn wait<T: Send + 'static>(
    what: impl Fn() -> String,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WaitError> {
    let signals = blocked()?;
    let (ended, end) = pipe().map_err(cannot("make a pipe"))?;
    let (sender, returned) = mpsc::channel();
    thread::Builder::new()
        .spawn(move || {
            // The wait may have ended already.
            let _ = sender.send(call());
            drop(end);
        })
        .map_err(cannot("start a thread"))?;
    let mut silence_ends = Some(Instant::now() + SILENCE);
    loop {
        let mut polled = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            signals
                .as_ref()
                .map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = match silence_ends {
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                // At most two seconds, which fit.
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut polled, timeout) {
            Ok(0) => {
                notify(format_args!("waiting {}", what()));
                silence_ends = None;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(cannot("wait for a thread")(errno)),
        }
        match returned.try_recv() {
            Ok(value) => return Ok(value),
            Err(mpsc::TryRecvError::Disconnected) => return Err(WaitError::Thread),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if let Some(signal) = signals.as_ref().and_then(received) {
            return Err(Interrupted {
                signal,
                what: what(),
            }
            .into());
        }
    }
}

/// A descriptor for the ending signals that this thread blocks; `None` if it blocks none.
fn blocked() -> Result<Option<SignalFd>, WaitError> {
    let mask = SigSet::thread_get_mask().map_err(cannot("read the signal mask"))?;
    let blocked: SigSet = ENDING.into_iter().filter(|s| mask.contains(*s)).collect();
    if blocked == SigSet::empty() {
        return Ok(None);
    }
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&blocked, flags).map_err(cannot("make a signalfd"))?;
    Ok(Some(signals))
}

fn received(signals: &SignalFd) -> Option<Signal> {
    let info = signals.read_signal().ok().flatten()?;
    let number = i32::try_from(info.ssi_signo).ok()?;
    Signal::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{SigmaskHow, pthread_sigmask, raise};

    use super::*;

    #[test]
    fn what_a_call_returns_is_returned() {
        assert_eq!(wait(|| "in vain".into(), || 7).unwrap(), 7);
    }

    #[test]
    fn a_blocked_signal_ends_the_wait() {
        let mut set = SigSet::empty();
        set.add(Signal::SIGHUP);
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None).unwrap();
        // Sent to this thread.
        raise(Signal::SIGHUP).unwrap();
        let (_never, comes) = mpsc::channel::<()>();
        let error = wait(|| "for nothing".into(), move || comes.recv()).unwrap_err();
        assert!(
            matches!(&error, WaitError::Interrupted(by) if by.signal == Signal::SIGHUP),
            "{error}"
        );
        assert_eq!(error.to_string(), "SIGHUP has ended the wait for nothing");
    }
}
