//! Waits in system calls that may take for ever, while signals are blocked.
//!
//! A supervisor blocks the signals that are meant for its command, before there is one. What it waits for until then
//! must end with them all the same.

use std::{
    io::pipe,
    os::fd::AsFd as _,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use crate::base::console::notify;

/// How long a wait goes on without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// The signals that end a process that does nothing about them, and that people send.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// A signal has ended a wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{signal} has ended the wait {what}")]
pub struct Interrupted {
    /// The signal.
    pub signal: Signal,
    /// What was waited for.
    pub what: String,
}

/// Waits for a call to return. After two seconds a line says "waiting", and `what` for. Of the signals that end a
/// process, those that this thread blocks end the wait; the others do what they do.
///
/// The call is made on a thread of its own, which is left behind if the wait ends: what it returns is dropped then.
///
/// # Errors
/// [`Interrupted`], or if there can be no thread.
pub fn wait<T: Send + 'static>(
    what: impl Fn() -> String,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let signals = blocked()?;
    let (ended, end) = pipe().context("cannot make a pipe")?;
    let (sender, returned) = mpsc::channel();
    thread::Builder::new()
        .spawn(move || {
            // Nobody may wait any more.
            let _ = sender.send(call());
            drop(end);
        })
        .context("cannot start a thread")?;
    let mut silence_ends = Some(Instant::now() + SILENCE);
    loop {
        let mut polled = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            signals
                .as_ref()
                .map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = match silence_ends {
            Some(end) => PollTimeout::try_from(end.saturating_duration_since(Instant::now()))?,
            None => PollTimeout::NONE,
        };
        match poll(&mut polled, timeout) {
            Ok(0) => {
                notify(format_args!("waiting {}", what()));
                silence_ends = None;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for a thread"),
        }
        match returned.try_recv() {
            Ok(value) => return Ok(value),
            Err(mpsc::TryRecvError::Disconnected) => return Err(anyhow!("a thread has failed")),
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

/// The ending signals that this thread blocks, to be received; `None` if there are none.
fn blocked() -> Result<Option<SignalFd>> {
    let mask = SigSet::thread_get_mask().context("cannot read the signal mask")?;
    let blocked: SigSet = ENDING.into_iter().filter(|s| mask.contains(*s)).collect();
    if blocked == SigSet::empty() {
        return Ok(None);
    }
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&blocked, flags).context("cannot make a signalfd")?;
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
        // To this thread.
        raise(Signal::SIGHUP).unwrap();
        let (_never, comes) = mpsc::channel::<()>();
        let error = wait(|| "for nothing".into(), move || comes.recv()).unwrap_err();
        let interrupted = error.downcast_ref::<Interrupted>().unwrap();
        assert_eq!(interrupted.signal, Signal::SIGHUP);
        assert_eq!(error.to_string(), "SIGHUP has ended the wait for nothing");
    }
}
