//! Describes processes by what /proc shows, for people. Only short files are read: neither the process's arguments nor
//! other parts of its memory. A read can still block for ever, so a helper process does it: see [`looks`] and
//! `helper.rs`.

mod end;
pub mod helper;
pub mod looks;
mod stat;

pub use end::ProcessEnd;
pub(crate) use stat::stat_text;
use stat::{Stat, field, read, threads};

use crate::base::printable::printable;

/// A process in words: its number, and what else is known of it.
fn name(pid: i32) -> String {
    match Stat::of(pid) {
        Some(Stat { name, state, .. }) => format!("process {pid} ({name}, state {state})"),
        None => format!("process {pid}"),
    }
}

/// What a thread does, in words: that it is stuck, and where if the kernel says so.
fn describe(tid: i32) -> Option<String> {
    let Stat {
        name,
        state,
        is_exiting,
        ..
    } = Stat::of(tid)?;
    let process = field(tid, "Tgid:").and_then(|pid| pid.parse::<i32>().ok());
    let which = match process {
        Some(pid) if pid != tid => format!("thread {tid} of process {pid}"),
        _ => format!("process {tid}"),
    };
    let ending = if is_exiting { ", ending" } else { "" };
    let place = read(tid, "wchan").unwrap_or_default();
    let place = match printable(&place) {
        // The kernel says nothing of one that runs, or to whom it hides its addresses.
        place if place.is_empty() || place == "0" => String::new(),
        place => format!(", in {place}"),
    };
    Some(format!("{which} ({name}, state {state}{ending}{place})"))
}

/// What keeps a process that is ending, in words: its threads that have not ended, or who traces it.
fn describe_keepers(pid: i32) -> String {
    let has_ended = |tid: &i32| Stat::of(*tid).is_none_or(|stat| stat.state == 'Z');
    let mut keepers: Vec<i32> = threads(pid);
    keepers.retain(|tid| !has_ended(tid));
    if !keepers.is_empty() {
        let described = keepers
            .iter()
            .filter_map(|tid| describe(*tid))
            .take(KEEPERS);
        return joined(described.collect(), keepers.len());
    }
    // A thread that is traced is there until its tracer has seen its end.
    let tracer = |tid| field(tid, "TracerPid:")?.parse::<i32>().ok();
    let tracers = threads(pid).into_iter().filter_map(tracer);
    match tracers.max() {
        Some(tracer) if tracer > 0 => format!("{} traces it", name(tracer)),
        _ => "a process that is not seen from here traces it".to_owned(),
    }
}

/// How many threads are described that keep a process.
const KEEPERS: usize = 5;

/// What threads do of which there are that many, in words.
fn joined(mut words: Vec<String>, all: usize) -> String {
    let more = all.saturating_sub(words.len());
    if !words.is_empty() && more > 0 {
        words.push(format!("{more} more threads"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_does_not_end() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(end::ending(own), None);
        assert!(
            describe(own)
                .unwrap()
                .starts_with(&format!("process {own} ("))
        );
        assert_eq!(describe(-7), None);
    }
}
