//! The logs of a fence. They are opened before the fence is made, and written as long as its supervisor runs.

use std::sync::Arc;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::{
    base::console::notify,
    record::{
        auditor::{Auditor, Ended},
        reader::{Reader, Sources},
        sink::{self, Sink},
        target::{Format, LogTarget, SinkKind},
        writer::Writer,
    },
};

/// Open logs, each with the user's name for it.
pub(super) type Logs = Vec<(String, Box<dyn Sink>)>;

/// Opens the logs. `user` is the user of the command, if it is not root's.
///
/// # Errors
/// If one cannot be opened.
pub(super) fn open(targets: &[LogTarget], format: Format, user: Option<Uid>) -> Result<Logs> {
    let mut sinks = Vec::new();
    for target in targets {
        if let Some(sink) = sink::open(target, format, user)? {
            sinks.push((target.to_string(), sink));
        }
    }
    Ok(sinks)
}

/// Refuses logs of a fence that has no supervisor, and so writes to none. Standard error is the default.
///
/// # Errors
/// If there is one.
pub(super) fn refuse(logs: &[LogTarget]) -> Result<()> {
    let refused = logs
        .iter()
        .find(|log| !matches!(log.kind, SinkKind::Stderr | SinkKind::None));
    if let Some(log) = refused {
        bail!(
            "nothing writes to the log {log} of a fence without a supervisor: leave --log or --detach out \
             (`qfence-user logs` shows the refusals that the kernel keeps)"
        );
    }
    Ok(())
}

/// Starts the thread that reads the attempts, and the threads that write the logs.
///
/// # Errors
/// If a thread cannot be started.
pub(super) fn start(name: Arc<str>, sources: Sources, logs: Logs) -> Result<Auditor> {
    let reader = Reader::new(sources, name)?;
    let writers = logs
        .into_iter()
        .map(|(name, sink)| Writer::start(name, sink));
    Auditor::start(reader, writers.collect::<Result<_>>()?)
}

/// Reports the number of attempts, and of lines about none, that each log lacks. The kernel's counters are exact, even if
/// lines were lost.
pub(super) fn say_missing(audit: &Ended) {
    for text in missing(audit) {
        notify(text);
    }
}

fn missing(audit: &Ended) -> Vec<String> {
    let all = audit.counts.on_record() + audit.beside;
    let mut texts = Vec::new();
    for (name, closed) in &audit.sinks {
        let missing = all.saturating_sub(closed.told);
        if missing > 0 {
            texts.push(format!(
                "{missing} of {all} refusals are not in the log {name}"
            ));
        }
        let others = closed.missing_others;
        if others > 0 {
            texts.push(format!(
                "{others} lines about no refusal are not in the log {name}"
            ));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::Counts, record::writer::Closed};

    #[test]
    fn what_a_log_lacks_is_counted_with_what_the_second_layer_has_dropped() {
        let audit = |told, missing_others| Ended {
            counts: Counts {
                refused: 10,
                ..Counts::default()
            },
            beside: 5,
            sinks: vec![(
                "x".into(),
                Closed {
                    told,
                    missing_others,
                },
            )],
        };
        assert_eq!(
            missing(&audit(12, 2)),
            [
                "3 of 15 refusals are not in the log x",
                "2 lines about no refusal are not in the log x"
            ]
        );
        assert_eq!(missing(&audit(15, 0)), Vec::<String>::new());
    }
}
