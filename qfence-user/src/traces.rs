//! Prints what the programs trace, when that is asked for.

use std::future::pending;

use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;

use crate::say::say;

/// Waits for traces and prints them; without traces, waits for ever.
pub(crate) async fn flush(traces: &mut Option<AsyncFd<EbpfLogger<Traces>>>) {
    let Some(traces) = traces else {
        return pending().await;
    };
    match traces.readable_mut().await {
        Ok(mut ready) => {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
        Err(error) => say(format_args!("cannot read the traces: {error}")),
    }
}

/// Prints the traces of the programs.
pub struct Traces;

impl log::Log for Traces {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say(format_args!("trace: {}", record.args()));
    }

    fn flush(&self) {}
}
