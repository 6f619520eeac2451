//! What /proc says of a process: what the kernel knows by itself, never what lies in the process's memory.
//!
//! The arguments and the environment (/proc/PID/cmdline, environ) are read out of that memory (`access_remote_vm` in
//! mm/memory.c), under a lock (`mmap_lock`) that the process can hold for ever, by a file system of its own that never
//! answers (`fuse_file_mmap` in fs/fuse/file.c). They can also be as long as the process likes. What is read here takes
//! no such lock, and is short; but see `process/helper.rs` for what reads /proc/PID/stat of a process in a fence.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::{
    base::{files::bounded, process::stat_text},
    qemu::executables::FileId,
};

/// As much of /proc/PID/cgroup as is read: some twenty paths of cgroups.
const CGROUP: u64 = 64 * 1024;

/// How many threads of a process are looked at for one that runs.
const SEARCHED: usize = 64;

/// A process, which nobody else is however soon its number is given away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in ticks of the clock since boot.
    pub started: u64,
}

/// What /proc/PID/stat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) id: ProcessId,
    /// The process that has made it, or has it now that this one is gone.
    pub(super) parent: u32,
    /// Whether it has ended, with all of its threads, and was only not waited for.
    pub(super) has_ended: bool,
}

impl ProcessId {
    /// Whether it was started after that moment, in nanoseconds since boot: then it is another process than had the
    /// number at that moment.
    pub(super) fn is_younger_than(&self, boot_ns: u64) -> bool {
        // USER_HZ, 100 on every architecture that has not been asked for another.
        let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let hz = hz.and_then(|hz| u64::try_from(hz).ok()).unwrap_or(100);
        // A moment is rounded down to ticks, so that this is never said of a process that was there.
        self.started.saturating_mul(1_000_000_000 / hz.max(1)) > boot_ns
    }
}

/// The directory of a process.
pub(super) struct Directory {
    path: PathBuf,
    pid: u32,
}

/// That of one of its threads. What of it is the process's has only a thread that runs: one that has ended has no
/// executable and no namespaces, the first one of a process that goes on without it as well (`exit_mm` in kernel/exit.c,
/// `proc_exe_link` and `proc_ns_get_link` in fs/proc).
pub(super) struct Thread(PathBuf);

impl Directory {
    pub(super) fn new(proc: &Path, pid: u32) -> Self {
        Self {
            path: proc.join(pid.to_string()),
            pid,
        }
    }

    /// `None` if there is no such process. The read may last for ever where the process chooses when it ends: see
    /// [`Stats`](super::stats).
    pub(super) fn stat(&self) -> Option<Stat> {
        parse(&stat_text(&self.path)?)
    }

    /// A thread of it that runs: this one, or the first, or one of the first few there are. If none does, the first.
    pub(super) fn running(&self, tid: u32) -> Thread {
        let named = [tid, self.pid].into_iter().map(|tid| self.thread(tid));
        // The directory is read when it comes to that.
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
    /// The path of its executable: the kernel's, which a process can have set to another file that it may execute
    /// (`PR_SET_MM_EXE_FILE`, `PR_SET_MM_MAP` in kernel/sys.c), by what is its own right in a user namespace.
    pub(super) fn executable(&self) -> Option<PathBuf> {
        fs::read_link(self.0.join("exe")).ok()
    }

    /// The file that this is.
    pub(super) fn executable_file(&self) -> Option<FileId> {
        FileId::of(&self.0.join("exe"))
    }

    /// The path of its cgroup in the cgroup2 hierarchy.
    pub(super) fn cgroup(&self) -> Option<Vec<u8>> {
        let text = bounded::read(&self.0.join("cgroup"), CGROUP).ok()?;
        let mut lines = text.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(b"0::").map(<[u8]>::to_vec))
    }

    /// The inode of its network namespace.
    pub(super) fn netns(&self) -> Option<u64> {
        fs::metadata(self.0.join("ns/net"))
            .ok()
            .map(|file| file.ino())
    }
}

/// That process, as it is now: one that does not end just now, such as a child that waits.
///
/// # Errors
/// If there is none.
pub fn identify(proc: &Path, pid: u32) -> io::Result<ProcessId> {
    let stat = Directory::new(proc, pid).stat();
    stat.map(|stat| stat.id)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The fields of proc_pid_stat(5). The second, the name in parentheses, can have anything in it.
pub(super) fn parse(stat: &[u8]) -> Option<Stat> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let (before, after) = (stat.get(..end)?, stat.get(end + 1..)?);
    let pid = before.split(|byte| *byte == b' ').next()?;
    let text = |word: &[u8]| OsString::from_vec(word.to_vec()).into_string().ok();
    let after = text(after)?;
    let mut fields = after.split_whitespace();
    // The third, the fourth, the 20th, and the 22nd.
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
        // The first thread is one of them as long as there are others, or nobody has waited for it.
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
    }
}
