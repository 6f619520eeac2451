//! The logs of a fence: opened before it is made, written to as long as its supervisor lives.

use std::sync::Arc;

use anyhow::Result;

use crate::{
    base::{console::notify, identity::Identity},
    cli::Exec,
    record::{
        auditor::{Auditor, Ended},
        reader::{Reader, Sources},
        sink::{self, Sink},
        writer::Writer,
    },
};

/// Logs, each with what the user calls it.
pub(super) type Logs = Vec<(String, Box<dyn Sink>)>;

/// Opens the logs, each with what the user calls it.
pub(super) fn open(options: &Exec, identity: Option<&Identity>) -> Result<Logs> {
    let user = identity.map(|identity| identity.uid);
    let mut sinks = Vec::new();
    for target in &options.log {
        if let Some(sink) = sink::open(target, options.log_format, user)? {
            sinks.push((target.to_string(), sink));
        }
    }
    Ok(sinks)
}

/// Starts what reads the attempts and writes the logs.
///
/// # Errors
/// If it cannot be started.
pub(super) fn start(name: Arc<str>, sources: Sources, logs: Logs) -> Result<Auditor> {
    let reader = Reader::new(sources, name)?;
    let writers = logs
        .into_iter()
        .map(|(name, sink)| Writer::start(name, sink));
    Auditor::start(reader, writers.collect::<Result<_>>()?)
}

/// Says what is in no log: the counters are exact, whatever became of the lines.
pub(super) fn say_missing(audit: &Ended) {
    let all = audit.counts.on_record();
    for (name, told) in &audit.told {
        let missing = all.saturating_sub(*told);
        if missing > 0 {
            notify(format_args!(
                "{missing} of {all} refusals are not in the log {name}"
            ));
        }
    }
}
