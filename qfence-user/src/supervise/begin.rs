//! Lets the command begin, and handles signals meanwhile: the file that it executes may be on a file system that does
//! not answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::time::{sleep, timeout};

use crate::{
    base::{interruptible::Interrupted, message_queue::MessageQueue},
    launch::{
        child::{Child, StartError, Starting},
        signals::{Received, Signals},
    },
};

/// After this time without progress, a message is printed.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a cancelled command may take to end. `rm` waits longer.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// In words.
    what: &'static str,
    /// How long; `None` for without a limit.
    limit: Option<Duration>,
}

/// The wait for a command.
const COMMAND: Wait = Wait {
    what: "the execution of the command",
    limit: None,
};

/// The wait for a process of qfence's own, which only makes the proof. Whoever may freeze its cgroup can delay it.
const PROOF: Wait = Wait {
    what: "the proof that the programs run",
    limit: Some(Duration::from_secs(10)),
};

/// Why a wait is over.
enum Over {
    /// The command has begun, or has failed to.
    Done,
    /// A signal ends the start.
    Signal(Received),
    /// It has lasted too long.
    TooLong(Duration),
}

/// Lets the command begin. After two seconds, prints what it is waiting for.
///
/// # Errors
/// As [`Starting::go`]. [`Interrupted`] in [`StartError::Failed`] if a signal has ended the start. If the process then
/// does not end, because it is blocked in the kernel, it is left in the fence. A signal that arrives after the command
/// has begun is left for [`Signals::next`].
pub async fn begin(
    starting: Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> Result<Child, StartError> {
    begin_with(COMMAND, starting, signals, messages).await
}

/// Lets a process begin that only makes the proof, like [`begin`], for ten seconds at most.
///
/// # Errors
/// As [`begin`], and [`StartError::Failed`] if it takes longer. The process is killed then.
pub async fn begin_proof(
    starting: Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> Result<Child, StartError> {
    begin_with(PROOF, starting, signals, messages).await
}

async fn begin_with(
    how: Wait,
    mut starting: Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> Result<Child, StartError> {
    starting.open_gate();
    let over = wait(how, &mut starting, signals, messages).await?;
    let error = match &over {
        Over::Done => {
            let started = starting.finish();
            signals.have_begun().context("cannot read signals")?;
            return started;
        }
        Over::Signal(received) => {
            let signal = received.ending().context("no signal")?;
            let what = "for the start of the command".to_owned();
            anyhow::Error::from(Interrupted { signal, what })
        }
        Over::TooLong(limit) => {
            anyhow!("its process did not run within {} seconds", limit.as_secs())
        }
    };
    starting.give_up();
    if timeout(ENDS_WITHIN, starting.done()).await.is_err() {
        starting.leave();
        return Err(error.into());
    }
    match starting.finish() {
        Err(StartError::GivenUp) => Err(error.into()),
        started => {
            if let Over::Signal(received) = over {
                signals.put_back(received);
            }
            signals.have_begun().context("cannot read signals")?;
            started
        }
    }
}

/// Waits until the command has begun, or has failed to, or the wait is over for another reason.
async fn wait(
    how: Wait,
    starting: &mut Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> anyhow::Result<Over> {
    let mut told = false;
    let begun = Instant::now();
    loop {
        // A pause that never ends in practice, where there is no limit.
        let limit = how.limit.unwrap_or(Duration::MAX);
        tokio::select! {
            biased;
            () = starting.done() => return Ok(Over::Done),
            received = signals.ending() => {
                return received.map(Over::Signal).context("cannot read signals");
            }
            () = sleep(SILENCE), if !told => {
                told = true;
                messages.notify(format_args!("waiting for {}", how.what));
            }
            () = sleep(limit.saturating_sub(begun.elapsed())) => return Ok(Over::TooLong(limit)),
        }
    }
}
