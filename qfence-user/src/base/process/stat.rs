//! Reads /proc/PID/stat and the other short files of a process or thread.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use crate::base::{
    files::bounded,
    printable::{in_parentheses, printable},
};

/// The most bytes that are read of a file. A process controls only its name in it, of at most 15 bytes.
const LENGTH: u64 = 4096;

/// `PF_EXITING` in linux/sched.h, among the flags in /proc/PID/stat.
const EXITING: u64 = 0x4;

/// The bit of SIGKILL in the sets of pending signals in /proc/PID/status.
const KILL: u64 = 1 << 8;

/// More bytes than /proc/PID/stat has: numbers, and a name of at most 64 bytes.
const STAT: u64 = 4096;

/// Reads `stat` of the first thread of the process whose directory in /proc is `process`. For the `stat` of the whole
/// process the kernel would visit all threads with their signals locked (`do_task_stat` in fs/proc/array.c). The read
/// can block for ever, so `helper.rs` does it.
pub(crate) fn stat_text(process: &Path) -> Option<Vec<u8>> {
    let thread = process.join("task").join(process.file_name()?);
    bounded::read(&thread.join("stat"), STAT).ok()
}

/// The state of a thread or process, from `stat` in /proc (`do_task_stat` in fs/proc/array.c).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its name, safe to print in parentheses.
    pub(super) name: String,
    /// The letter of its state, as in proc_pid_stat(5). A process in `D` cannot be interrupted, not even by SIGKILL.
    pub(super) state: char,
    /// Whether it is ending.
    pub(super) is_exiting: bool,
    /// The exit status, as in wait(2). 0 while the thread runs, if this process may not trace it, or if the text is
    /// short. For a process, since Linux 5.17, it is set as soon as the whole process ends
    /// (`signal->group_exit_code`); before, only when the first thread ends.
    pub(super) code: i32,
}

impl Stat {
    /// Reads that of a thread; `None` if it does not exist.
    pub(super) fn of(tid: i32) -> Option<Self> {
        Self::parse(&read(tid, "stat").ok()?)
    }

    /// Reads that of a process. The kernel visits all threads for it.
    pub(super) fn of_process(pid: i32) -> Option<Self> {
        Self::parse(&read_file(&format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name, in parentheses, can contain any bytes.
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

    /// The number of the signal that ends it; 0 if it ends by itself or not at all.
    pub(super) fn signal(&self) -> i32 {
        self.code & 0x7f
    }
}

/// The threads of a process, in any order.
pub(super) fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let tid = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    entries.map_or_else(|_| Vec::new(), |entries| entries.filter_map(tid).collect())
}

/// Whether a thread is ending; `None` if it has ended.
pub(super) fn is_ending(tid: i32) -> Option<bool> {
    let stat = Stat::of(tid)?;
    Some(stat.is_exiting || stat.signal() == nix::libc::SIGKILL || is_kill_pending(tid))
}

/// Whether SIGKILL is pending. Each thread of a process that ends gets it, whatever the cause (`zap_other_threads`
/// and `complete_signal` in kernel/signal.c).
pub(super) fn is_kill_pending(tid: i32) -> bool {
    has_kill(tid, "SigPnd:") || has_kill(tid, "ShdPnd:")
}

pub(super) fn has_kill(tid: i32, set: &str) -> bool {
    let signals = field(tid, set).and_then(|set| u64::from_str_radix(&set, 16).ok());
    signals.is_some_and(|set| set & KILL != 0)
}

/// A field of /proc/TID/status.
pub(super) fn field(tid: i32, name: &str) -> Option<String> {
    let status = read(tid, "status").ok()?;
    let status = String::from_utf8_lossy(&status);
    let field = status.lines().find_map(|line| line.strip_prefix(name));
    field.map(|field| field.trim().to_owned())
}

/// Reads a file in the directory of a thread.
pub(super) fn read(tid: i32, file: &str) -> io::Result<Vec<u8>> {
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
}
