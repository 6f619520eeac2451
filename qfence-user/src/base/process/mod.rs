//! Describes processes by what /proc shows, for people. Only short files are read: neither the process's arguments nor
//! other parts of its memory. A read can still block for ever, so a helper process does it: see [`looks`] and
//! `helper.rs`.

mod end;
pub mod helper;
pub mod looks;
pub(crate) mod open_taps;
mod stat;
pub(crate) mod tun;

pub use end::ProcessEnd;
pub(crate) use stat::stat_text;
use stat::{Stat, field, read, threads};

use crate::base::printable::printable;

/// A process in words: number, name and state.
fn name(pid: i32) -> String {
    match Stat::of(pid) {
        Some(Stat { name, state, .. }) => format!("process {pid} ({name}, state {state})"),
        None => format!("process {pid}"),
    }
}

/// A thread in words: name, state, and the system call that it is blocked in, if the kernel shows it.
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
        // The kernel shows nothing for a running thread, or if it hides addresses from this process.
        place if place.is_empty() || place == "0" => String::new(),
        place => format!(", in {place}"),
    };
    Some(format!("{which} ({name}, state {state}{ending}{place})"))
}

/// The threads that keep a process from ending, or its tracer, in words.
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
    // A traced thread remains until its tracer has waited for it.
    let tracer = |tid| field(tid, "TracerPid:")?.parse::<i32>().ok();
    let tracers = threads(pid).into_iter().filter_map(tracer);
    match tracers.max() {
        Some(tracer) if tracer > 0 => format!("{} traces it", name(tracer)),
        _ => "a process outside of this pid namespace traces it".to_owned(),
    }
}

/// The most threads that are described for a process that is kept.
const KEEPERS: usize = 5;

/// Joins the descriptions of some of `all` threads.
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
