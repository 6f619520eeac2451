//! What /proc says of a process, for people. All of it is short, and nothing of it waits for the process: neither its
//! arguments nor anything else in its memory is read.

use std::{
    fs::File,
    io::{self, Read as _},
};

use crate::say::printable;

/// How much is read of a file, in bytes. A process has a say in its name alone, which is 15 bytes long.
const LENGTH: u64 = 4096;

/// `PF_EXITING` in linux/sched.h, among the flags in /proc/PID/stat.
const EXITING: u64 = 0x4;

/// The bit of SIGKILL in the sets of pending signals in /proc/PID/status.
const KILL: u64 = 1 << 8;

/// A thread, as /proc/TID/stat has it (`do_task_stat` in fs/proc/array.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its name, safe to print.
    pub name: String,
    /// The letter for its state, as in proc_pid_stat(5): `D` cannot be interrupted, not even by SIGKILL.
    pub state: char,
    /// Whether it is ending.
    pub is_exiting: bool,
}

impl Stat {
    /// That of a thread; `None` if there is none.
    #[must_use]
    pub fn of(tid: i32) -> Option<Self> {
        Self::parse(&read(tid, "stat").ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        Some(Self {
            name: printable(stat.get(begin..end)?),
            state: fields.first()?.chars().next()?,
            is_exiting: flags & EXITING != 0,
        })
    }
}

/// A process in words: its number, and what else is known of it.
#[must_use]
pub fn name(pid: i32) -> String {
    match Stat::of(pid) {
        Some(Stat { name, state, .. }) => format!("process {pid} ({name}, state {state})"),
        None => format!("process {pid}"),
    }
}

/// What a thread does, in words: that it is stuck, and where if the kernel says so.
#[must_use]
pub fn describe(tid: i32) -> Option<String> {
    let Stat {
        name,
        state,
        is_exiting,
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

/// Whether a process was killed, and is still there: SIGKILL is pending, or it is ending. One that only waits for
/// its parent to ask for its status is not there any more.
#[must_use]
pub fn is_killed(pid: i32) -> bool {
    let Some(stat) = Stat::of(pid) else {
        return false;
    };
    let pending = |name| {
        let signals = field(pid, name).and_then(|set| u64::from_str_radix(&set, 16).ok());
        signals.is_some_and(|set| set & KILL != 0)
    };
    !matches!(stat.state, 'Z' | 'X')
        && (stat.is_exiting || pending("SigPnd:") || pending("ShdPnd:"))
}

/// A field of /proc/TID/status.
fn field(tid: i32, name: &str) -> Option<String> {
    let status = read(tid, "status").ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = status.lines().find_map(|line| line.strip_prefix(name));
    field.map(|field| field.trim().to_owned())
}

fn read(tid: i32, file: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{tid}/{file}"))?
        .take(LENGTH)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_what_comes_after_it() {
        let stat = Stat::parse(b"12 (a) Z (\x1b) D 1 12 12 0 -1 4194564 0 0").unwrap();
        assert_eq!(stat.name, "a) Z (\\x1b");
        assert_eq!((stat.state, stat.is_exiting), ('D', true));
        let stat = Stat::parse(b"12 (sh) S 1 12 12 0 -1 4194304 0 0").unwrap();
        assert_eq!((stat.state, stat.is_exiting), ('S', false));
        assert_eq!(Stat::parse(b"12 (sh"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn who_lives_is_not_killed() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!is_killed(own));
        assert!(
            describe(own)
                .unwrap()
                .starts_with(&format!("process {own} ("))
        );
        assert_eq!(describe(-7), None);
    }
}
