//! What /proc says of a process, for people. All of it is short: neither the process's arguments nor anything else in its
//! memory is read. It can last for ever all the same, and is read by a helper process: see [`looks`] and `helper.rs`.

pub mod helper;
pub mod looks;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::ExitStatus,
};

use nix::{libc, sys::utsname::uname};

use crate::base::{
    files::bounded,
    printable::{in_parentheses, printable},
    release::{self, Version},
};

/// How much is read of a file, in bytes. A process has a say in its name alone, which is 15 bytes long.
const LENGTH: u64 = 4096;

/// `PF_EXITING` in linux/sched.h, among the flags in /proc/PID/stat.
const EXITING: u64 = 0x4;

/// The bit of SIGKILL in the sets of pending signals in /proc/PID/status.
const KILL: u64 = 1 << 8;

/// More than /proc/PID/stat has: numbers, and a name of 64 bytes at most.
const STAT: u64 = 4096;

/// The text of `stat` of the first thread of a process, whose directory in /proc is `process`. To read that of the process
/// takes the kernel the longer the more threads there are, with their signals locked (`do_task_stat` in fs/proc/array.c).
/// The read may last for ever: see `helper.rs`, which does it.
pub(crate) fn stat_text(process: &Path) -> Option<Vec<u8>> {
    let thread = process.join("task").join(process.file_name()?);
    bounded::read(&thread.join("stat"), STAT).ok()
}

/// A thread, or a process, as /proc has it in `stat` (`do_task_stat` in fs/proc/array.c).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    /// Its name, safe to print in parentheses.
    name: String,
    /// The letter for its state, as in proc_pid_stat(5): `D` cannot be interrupted, not even by SIGKILL.
    state: char,
    /// Whether it is ending.
    is_exiting: bool,
    /// How it ends, as wait(2) says it; 0 as long as it does not, to whoever may not trace it, and in what is short.
    /// Of a process, since Linux 5.17, that of all of it once it ends as a whole (`signal->group_exit_code`); else that of
    /// the thread once it is ending.
    code: i32,
}

impl Stat {
    /// That of a thread; `None` if there is none.
    fn of(tid: i32) -> Option<Self> {
        Self::parse(&read(tid, "stat").ok()?)
    }

    /// That of a process. It takes the kernel the longer the more threads there are.
    fn of_process(pid: i32) -> Option<Self> {
        Self::parse(&read_file(&format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name, in parentheses, may hold anything.
        let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let flags: u64 = fields.get(6)?.parse().ok()?;
        Some(Self {
            name: in_parentheses(&printable(stat.get(begin..end)?)),
            state: fields.first()?.chars().next()?,
            is_exiting: flags & EXITING != 0,
            code: fields
                .get(49)
                .and_then(|code| code.parse().ok())
                .unwrap_or(0),
        })
    }

    /// The number of the signal that ends it; 0 if none does.
    fn signal(&self) -> i32 {
        self.code & 0x7f
    }
}

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

/// How a process ends that is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// By SIGKILL; or by another signal, and its first thread is still in a system call, as after SIGKILL.
    Killed,
    /// By itself, or by another signal that its first thread has acted on: that closes what it has open, say.
    Leaving,
    /// By itself, or by another signal than SIGKILL. Its first thread has ended, with the status of the process if that can be
    /// read; its parent does not get it as long as other threads or a tracer keep it (`delay_group_leader` in
    /// kernel/signal.c, `wait_consider_task` in kernel/exit.c).
    Kept(Option<ExitStatus>),
}

impl ProcessEnd {
    /// In a word, and the number of a status; nothing for a process that does not end.
    fn encode(ending: Option<Self>) -> String {
        match ending {
            None => String::new(),
            Some(Self::Killed) => "killed".to_owned(),
            Some(Self::Leaving) => "leaving".to_owned(),
            Some(Self::Kept(None)) => "kept".to_owned(),
            Some(Self::Kept(Some(status))) => format!("kept {}", status.into_raw()),
        }
    }

    /// What that says; `None` if it is nothing of the kind.
    fn decode(words: &str) -> Option<Option<Self>> {
        Some(match words.split_once(' ') {
            None if words.is_empty() => None,
            None if words == "killed" => Some(Self::Killed),
            None if words == "leaving" => Some(Self::Leaving),
            None if words == "kept" => Some(Self::Kept(None)),
            Some(("kept", status)) => {
                let status = ExitStatus::from_raw(status.parse().ok()?);
                Some(Self::Kept(Some(status)))
            }
            _ => return None,
        })
    }
}

/// How a process ends that is still there; `None` if it does not end. One that goes on without its first thread does
/// not.
fn ending(pid: i32) -> Option<ProcessEnd> {
    let stat = Stat::of_process(pid)?;
    let is_ending = |tid: i32| is_ending(tid) != Some(false);
    if stat.state == 'X' || !is_ending(pid) || !threads(pid).into_iter().all(is_ending) {
        return None;
    }
    let is_in_a_call = !stat.is_exiting && is_kill_pending(pid);
    Some(
        if stat.signal() == libc::SIGKILL || (is_in_a_call && is_by_signal(pid, &stat)) {
            ProcessEnd::Killed
        } else if stat.state == 'Z' {
            // Where this is refused, the status is hidden; what has ended has none.
            let hidden = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            let is_hidden = fs::read_link(format!("/proc/{pid}/exe")).is_err_and(hidden);
            ProcessEnd::Kept((!is_hidden).then(|| ExitStatus::from_raw(stat.code)))
        } else {
            ProcessEnd::Leaving
        },
    )
}

/// The threads of a process, in no order.
fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let tid = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    entries.map_or_else(|_| Vec::new(), |entries| entries.filter_map(tid).collect())
}

/// Whether a thread ends; `None` if it has ended.
fn is_ending(tid: i32) -> Option<bool> {
    let stat = Stat::of(tid)?;
    Some(stat.is_exiting || stat.signal() == libc::SIGKILL || is_kill_pending(tid))
}

/// Whether SIGKILL is pending: each thread gets it of a process that ends, however that is (`zap_other_threads` and
/// `complete_signal` in kernel/signal.c).
fn is_kill_pending(tid: i32) -> bool {
    has_kill(tid, "SigPnd:") || has_kill(tid, "ShdPnd:")
}

fn has_kill(tid: i32, set: &str) -> bool {
    let signals = field(tid, set).and_then(|set| u64::from_str_radix(&set, 16).ok());
    signals.is_some_and(|set| set & KILL != 0)
}

/// Whether a signal ends a process for which SIGKILL is pending, and not a thread of its own. Before Linux 5.17 that
/// cannot be told of one that was not sent SIGKILL by kill(2).
fn is_by_signal(pid: i32, stat: &Stat) -> bool {
    let tells = || {
        let release = uname().ok()?.release().to_str().and_then(release::parse)?;
        Some(release >= Version::STAT_TELLS_THE_END_OF_ALL)
    };
    stat.signal() != 0 || has_kill(pid, "ShdPnd:") || (stat.code == 0 && tells() != Some(true))
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

/// A field of /proc/TID/status.
fn field(tid: i32, name: &str) -> Option<String> {
    let status = read(tid, "status").ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = status.lines().find_map(|line| line.strip_prefix(name));
    field.map(|field| field.trim().to_owned())
}

/// A file of a thread's own.
fn read(tid: i32, file: &str) -> io::Result<Vec<u8>> {
    read_file(&format!("/proc/{tid}/task/{tid}/{file}"))
}

fn read_file(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LENGTH).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_what_comes_after_it() {
        let stat = Stat::parse(b"12 (a) Z (\x1b) D 1 12 12 0 -1 4194564 0 0").unwrap();
        assert_eq!(stat.name, "a\\x29 Z \\x28\\x1b");
        assert_eq!((stat.state, stat.is_exiting), ('D', true));
        let stat = Stat::parse(b"12 (sh) S 1 12 12 0 -1 4194304 0 0").unwrap();
        assert_eq!((stat.state, stat.is_exiting), ('S', false));
        assert_eq!(Stat::parse(b"12 (sh"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn how_it_ends_is_read_where_the_kernel_says_it() {
        let with = |code| format!("12 (sh) Z 1 12 12 0 -1 4194564{} {code}", " 0".repeat(42));
        assert_eq!(Stat::parse(with(0x89).as_bytes()).unwrap().signal(), 9);
        let stat = Stat::parse(with(0x700).as_bytes()).unwrap();
        assert_eq!((stat.code, stat.signal()), (0x700, 0));
        assert_eq!(Stat::parse(b"12 (sh) S 1 12 12 0 -1 0").unwrap().code, 0);
    }

    #[test]
    fn who_lives_does_not_end() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(ending(own), None);
        assert!(
            describe(own)
                .unwrap()
                .starts_with(&format!("process {own} ("))
        );
        assert_eq!(describe(-7), None);
    }

    #[test]
    fn an_end_is_the_same_once_it_was_told() {
        let status = ExitStatus::from_raw(0x89);
        for ending in [
            None,
            Some(ProcessEnd::Killed),
            Some(ProcessEnd::Leaving),
            Some(ProcessEnd::Kept(None)),
            Some(ProcessEnd::Kept(Some(status))),
        ] {
            assert_eq!(
                ProcessEnd::decode(&ProcessEnd::encode(ending)),
                Some(ending)
            );
        }
        for odd in ["kept x", "gone", "killed 9", " "] {
            assert_eq!(ProcessEnd::decode(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn who_was_not_waited_for_has_ended_with_its_status() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while Stat::of(pid).unwrap().state != 'Z' {
            std::thread::yield_now();
        }
        let status = ExitStatus::from_raw(7 << 8);
        assert_eq!(ending(pid), Some(ProcessEnd::Kept(Some(status))));
        child.wait().unwrap();
        assert_eq!(ending(pid), None);
    }
}
