//! Lets the command begin, and handles signals meanwhile: the file that it executes may be on a file system that does
//! not answer.

use std::time::Duration;

use anyhow::Context as _;
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

/// Lets the command begin. After two seconds, prints what it is waiting for.
///
/// # Errors
/// As [`Starting::go`]. [`Interrupted`] in [`StartError::Failed`] if a signal has ended the start. If the process then
/// does not end, because it is blocked in the kernel, it is left in the fence. A signal that arrives after the command
/// has begun is left for [`Signals::next`].
pub async fn begin(
    mut starting: Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> Result<Child, StartError> {
    starting.open_gate();
    let Some(received) = wait(&mut starting, signals, messages).await? else {
        let started = starting.finish();
        signals.have_begun().context("cannot read signals")?;
        return started;
    };
    starting.give_up();
    let interrupted = || {
        let signal = received.ending()?;
        let what = "for the start of the command".to_owned();
        Some(anyhow::Error::from(Interrupted { signal, what }))
    };
    if timeout(ENDS_WITHIN, starting.done()).await.is_err() {
        starting.leave();
        return Err(interrupted().context("no signal")?.into());
    }
    match starting.finish() {
        Err(StartError::GivenUp) => Err(interrupted().context("no signal")?.into()),
        started => {
            signals.put_back(received);
            signals.have_begun().context("cannot read signals")?;
            started
        }
    }
}

/// Waits until the command has begun, or has failed to. Returns a signal if one arrives first that ends the start.
async fn wait(
    starting: &mut Starting,
    signals: &mut Signals,
    messages: &MessageQueue,
) -> anyhow::Result<Option<Received>> {
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            () = starting.done() => return Ok(None),
            received = signals.ending() => return received.map(Some).context("cannot read signals"),
            () = sleep(SILENCE), if !told => {
                told = true;
                messages.notify("waiting for the execution of the command");
            }
        }
    }
}
