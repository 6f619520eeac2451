//! Reads facts about a process from /proc: only what the kernel itself knows, never the memory of the process.
//!
//! The arguments and the environment (/proc/PID/cmdline, environ) are in that memory (`access_remote_vm` in
//! mm/memory.c). Reading it takes a lock (`mmap_lock`) that the process can keep forever, by means of its own file
//! system that never answers (`fuse_file_mmap` in fs/fuse/file.c). They can also have any length. The files that are
//! read here need no such lock and are short. For /proc/PID/stat of a process in a fence see `process/helper.rs`.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::{
    base::{clock::as_shown, files::bounded, process::stat_text},
    qemu::executables::FileId,
};

/// The maximum size read of /proc/PID/cgroup, in bytes: about twenty paths of cgroups.
const CGROUP: u64 = 64 * 1024;

/// The number of threads that are searched for a running one.
const SEARCHED: usize = 64;

/// Identifies a process. No other process gets the same identity, even if its number is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process number.
    pub pid: u32,
    /// The start time, in clock ticks since boot.
    pub started: u64,
}

/// The fields of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) id: ProcessId,
    /// The parent process.
    pub(super) parent: u32,
    /// Whether all of its threads have ended, and it only waits to be reaped.
    pub(super) has_ended: bool,
}

impl ProcessId {
    /// Whether the process was started after this time, in nanoseconds since boot. Then it is not the process that had
    /// the number at that time.
    pub(super) fn is_younger_than(&self, boot_ns: u64) -> bool {
        // The start time is rounded down to ticks. So this is never true of a process that existed at `boot_ns`.
        self.started.saturating_mul(tick_ns()) > as_shown(boot_ns)
    }

    /// Whether the process was started before this time, in nanoseconds since boot. Of a start in the last clock tick
    /// before that it is not known.
    pub(crate) fn is_older_than(&self, boot_ns: u64) -> bool {
        (self.started.saturating_add(1)).saturating_mul(tick_ns()) <= as_shown(boot_ns)
    }
}

/// The length of a clock tick, in nanoseconds.
fn tick_ns() -> u64 {
    // USER_HZ: 100 on every architecture unless it was changed.
    let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let hz = hz.and_then(|hz| u64::try_from(hz).ok()).unwrap_or(100);
    1_000_000_000 / hz.max(1)
}

/// The identity of the process that the text of /proc/PID/stat describes.
pub(crate) fn identity(stat: &[u8]) -> Option<ProcessId> {
    parse(stat).map(|stat| stat.id)
}

/// The directory of a process.
pub(super) struct Directory {
    path: PathBuf,
    pid: u32,
}

/// The directory of one of its threads. Only a running thread has the executable and the namespaces of the process. A
/// thread that has ended has none, even if it is the first thread of a process that continues (`exit_mm` in
/// kernel/exit.c, `proc_exe_link` and `proc_ns_get_link` in fs/proc).
pub(super) struct Thread(PathBuf);

impl Directory {
    pub(super) fn new(proc: &Path, pid: u32) -> Self {
        Self {
            path: proc.join(pid.to_string()),
            pid,
        }
    }

    /// `None` if the process does not exist. A process that controls its own exit can block this read forever: see
    /// [`Stats`](super::stats).
    pub(super) fn stat(&self) -> Option<Stat> {
        parse(&stat_text(&self.path)?)
    }

    /// A running thread of the process: `tid`, the first thread, or one of the first [`SEARCHED`] threads. If none is
    /// running, the first thread.
    pub(super) fn running(&self, tid: u32) -> Thread {
        let named = [tid, self.pid].into_iter().map(|tid| self.thread(tid));
        // The directory is read only if needed.
        let others = std::iter::once_with(|| fs::read_dir(self.path.join("task")))
            .flatten()
            .flatten()
            .take(SEARCHED)
            .filter_map(|entry| entry.ok().map(|entry| Thread(entry.path())));
        named
            .chain(others)
            .find(|thread| thread.executable().is_some())
            .unwrap_or_else(|| self.thread(self.pid))
    }

    fn thread(&self, tid: u32) -> Thread {
        Thread(self.path.join("task").join(tid.to_string()))
    }
}

impl Thread {
    /// The path of the executable, as the kernel knows it. In a user namespace, a process may change it to any file
    /// that it can execute (`PR_SET_MM_EXE_FILE`, `PR_SET_MM_MAP` in kernel/sys.c).
    pub(super) fn executable(&self) -> Option<PathBuf> {
        fs::read_link(self.0.join("exe")).ok()
    }

    /// The identity of the executable's file.
    pub(super) fn executable_file(&self) -> Option<FileId> {
        FileId::of(&self.0.join("exe"))
    }

    /// The path of the process's cgroup in the cgroup2 hierarchy.
    pub(super) fn cgroup(&self) -> Option<Vec<u8>> {
        let text = bounded::read(&self.0.join("cgroup"), CGROUP).ok()?;
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(b"0::").map(<[u8]>::to_vec))
    }

    /// The inode of the process's network namespace.
    pub(super) fn netns(&self) -> Option<u64> {
        fs::metadata(self.0.join("ns/net"))
            .ok()
            .map(|file| file.ino())
    }
}

/// Identifies a running process. The process must not control its own exit (see [`Directory::stat`]); a child that
/// waits does not.
///
/// # Errors
/// If there is no such process.
pub fn identify(proc: &Path, pid: u32) -> io::Result<ProcessId> {
    let stat = Directory::new(proc, pid).stat();
    stat.map(|stat| stat.id)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Parses the fields of proc_pid_stat(5). The second field, the name in parentheses, can contain any bytes.
pub(super) fn parse(stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let (before, after) = (stat.get(..end)?, stat.get(end + 1..)?);
    let pid = before.split(|byte| *byte == b' ').next()?;
    let text = |word: &[u8]| OsString::from_vec(word.to_vec()).into_string().ok();
    let after = text(after)?;
    let mut fields = after.split_whitespace();
    // Fields 3, 4, 20 and 22.
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let threads: u32 = fields.nth(15)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        id: ProcessId {
            pid: text(pid)?.parse().ok()?,
            started,
        },
        parent,
        // The first thread is counted as long as other threads run, or the process was not reaped.
        has_ended: state == "X" || (state == "Z" && threads <= 1),
    })
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn a_name_cannot_pass_for_other_fields() {
        let stat = b"4242 (a) R 1 (b) S 77 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 123456 1 1\n";
        let expected = Stat {
            id: ProcessId {
                pid: 4242,
                started: 123_456,
            },
            parent: 77,
            has_ended: false,
        };
        assert_eq!(parse(stat), Some(expected));
        let with = |state, threads| {
            format!("1 (a) {state} 1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 1 1")
        };
        for (state, threads, has_ended) in [
            ("Z", 1, true),
            ("Z", 2, false),
            ("X", 1, true),
            ("S", 1, false),
            ("D", 2, false),
        ] {
            let stat = parse(with(state, threads).as_bytes()).unwrap();
            assert_eq!(stat.has_ended, has_ended, "{state} {threads}");
        }
        for odd in [&b""[..], b"4242", b"4242 (x) S", b") S 1 2 3"] {
            assert_eq!(parse(odd), None);
        }
    }

    #[test]
    fn this_process_was_started_before_now_and_not_before_boot() {
        let stat = Directory::new(Path::new("/proc"), process::id())
            .stat()
            .unwrap();
        assert_eq!(stat.id.pid, process::id());
        assert!(stat.id.is_younger_than(0));
        assert!(!stat.id.is_younger_than(u64::MAX));
        assert!(stat.id.is_older_than(u64::MAX));
        let started = stat.id.started * tick_ns();
        assert!(!stat.id.is_older_than(started) && stat.id.is_older_than(started + tick_ns()));
    }
}
