//! Looks up the process that made an attempt, as long as it exists.

use std::{
    collections::HashSet,
    net::IpAddr,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use nix::sys::stat::stat;
use qfence_common::{AttemptKey, Origin};

use super::{
    guest::{Qemu, dialled},
    proc::{Directory, ProcessId},
    stats::Stats,
};
use crate::{
    base::printable::{printable, shortened},
    qemu::slirp::Guest,
};

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO` in linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The maximum length of an executable's path, in bytes. The process chooses the path.
const EXECUTABLE: usize = 512;

/// The maximum length of a cgroup's path, in bytes.
const CGROUP: usize = 1024;

/// The maximum number of paths in the cache, which stores equal paths of different processes once.
const KNOWN: usize = 256;

/// Looks up processes.
#[derive(Debug)]
pub struct Processes {
    /// `None` in a pid namespace, where /proc has other process numbers than the eBPF programs report.
    proc: Option<PathBuf>,
    /// Reads the state of processes.
    stats: Stats,
    /// The QEMU of the command, if it starts one.
    qemu: Option<Qemu>,
    guest: Option<Arc<Guest>>,
    /// The process of the command, after its start.
    command: Arc<OnceLock<ProcessId>>,
    /// The cache of paths.
    known: HashSet<Arc<str>>,
}

/// What is known of a process besides its origin in the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its identity; `None` if not known.
    id: Option<ProcessId>,
    /// Whether the process has changed since the attempt: another process has its number, or it has executed another
    /// program. The origin in the event then does not describe it any more.
    pub has_changed: bool,
    /// The path of its executable, safe to print and shortened.
    pub executable: Option<Arc<str>>,
    /// The path of its cgroup in the cgroup2 hierarchy, as seen by this process, safe to print and shortened. This and
    /// `netns` are read from the thread while it runs.
    pub cgroup_path: Option<Arc<str>>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
    /// Its guest, if it is the QEMU of the command.
    guest: Option<Arc<Guest>>,
}

impl Processes {
    /// Looks processes up in `proc`, if its process numbers are those of the eBPF programs. `qemu` is the QEMU that the
    /// command starts, if any.
    #[must_use]
    pub fn new(proc: PathBuf, qemu: Option<Qemu>) -> Self {
        let namespace = stat(&proc.join("self/ns/pid")).map(|file| file.st_ino);
        let is_initial = namespace == Ok(INITIAL_PID_NAMESPACE);
        let command = OnceLock::new();
        if let Some(process) = qemu.as_ref().and_then(|qemu| qemu.process) {
            // The cell is new, so this cannot fail.
            let _ = command.set(process);
        }
        Self {
            stats: Stats::new(&proc),
            proc: is_initial.then_some(proc),
            guest: qemu.as_ref().map(|qemu| Arc::new(qemu.guest.clone())),
            qemu,
            command: Arc::new(command),
            known: HashSet::new(),
        }
    }

    /// Starts the helper process early: a process that makes an attempt may end soon after it.
    pub fn prepare(&self) {
        if self.proc.is_some() {
            self.stats.prepare();
        }
    }

    /// The cell in which the caller stores the command's process.
    #[must_use]
    pub fn command(&self) -> Arc<OnceLock<ProcessId>> {
        Arc::clone(&self.command)
    }

    /// Looks up the process that had the number `pid` at `boot_ns` (nanoseconds since boot), and its thread `tid` if
    /// that is running. Empty if the process is gone.
    #[must_use]
    pub fn look_up(&mut self, pid: u32, tid: u32, boot_ns: u64) -> Process {
        let proc = self.proc.as_ref().filter(|_| pid != 0);
        self.look_at(proc.cloned(), (pid, tid), boot_ns)
            .unwrap_or_default()
    }

    /// Looks up the process that had the number `pid` at `last_ns` (nanoseconds since boot). `before` is the result of
    /// the lookup at `first_ns`, the time of the first attempt. If the process is gone, `before` is returned.
    #[must_use]
    pub fn look_again(
        &mut self,
        before: Option<Process>,
        (pid, tid): (u32, u32),
        (first_ns, last_ns): (u64, u64),
    ) -> Process {
        let before = before.unwrap_or_default();
        let now = self.look_up(pid, tid, last_ns);
        match now.id {
            // A process that has ended has no executable.
            Some(id) if now.executable.is_some() => Process {
                has_changed: before.has_changed
                    || id.is_younger_than(first_ns)
                    || before.is_another(&now),
                ..now
            },
            _ => before,
        }
    }

    fn look_at(
        &mut self,
        proc: Option<PathBuf>,
        (pid, tid): (u32, u32),
        boot_ns: u64,
    ) -> Option<Process> {
        let proc = proc?;
        let thread = Directory::new(&proc, pid).running(tid);
        let executable = thread.executable();
        let cgroup_path = thread.cgroup();
        let netns = thread.netns();
        // Read last: if this process had the number at `boot_ns`, everything above was read from it too.
        let stat = self.stats.of(pid).ok()??;
        if stat.id.is_younger_than(boot_ns) {
            return None;
        }
        let command = self.command.get().copied();
        let is_qemu = |qemu: &Qemu| {
            let executable = executable.as_deref();
            executable.is_some_and(|executable| {
                qemu.is(command, &proc, &self.stats, &stat, executable)
                    // More was read of the process, so its identity is checked again.
                    && self.stats.of(pid).is_ok_and(|now| now.map(|now| now.id) == Some(stat.id))
            })
        };
        let guest = self.guest.clone();
        let guest = guest.filter(|_| self.qemu.as_ref().is_some_and(is_qemu));
        Some(Process {
            id: Some(stat.id),
            has_changed: false,
            executable: executable.map(|path| self.known(path.as_os_str().as_bytes(), EXECUTABLE)),
            cgroup_path: cgroup_path.map(|path| self.known(&path, CGROUP)),
            netns,
            guest,
        })
    }

    /// A path, safe to print and shortened, from the cache if possible.
    fn known(&mut self, path: &[u8], longest: usize) -> Arc<str> {
        let path = shortened(printable(path), longest);
        if let Some(known) = self.known.get(path.as_str()) {
            return Arc::clone(known);
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let path: Arc<str> = path.into();
        self.known.insert(Arc::clone(&path));
        path
    }
}

impl Process {
    /// Whether `now` is known to be another process, or to execute another program.
    fn is_another(&self, now: &Self) -> bool {
        let executes = self.executable.is_some() && self.executable != now.executable;
        self.id.is_some() && (self.id != now.id || executes)
    }

    /// The address that a guest dialled, if the process is the QEMU whose user network translates that address to
    /// `destination`, and the attempt is the guest's.
    #[must_use]
    pub fn dialled(
        &self,
        key: &AttemptKey,
        origin: &Origin,
        destination: IpAddr,
    ) -> Option<IpAddr> {
        dialled(self.guest.as_ref()?, key, origin, destination)
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    fn processes() -> Processes {
        Processes {
            proc: Some("/proc".into()),
            stats: Stats::here("/proc".as_ref()),
            ..Processes::new("/nowhere".into(), None)
        }
    }

    #[test]
    fn this_process_is_found_and_one_that_is_not_there_is_not() {
        let mut processes = processes();
        let process = processes.look_up(process::id(), 0, u64::MAX);
        let own = std::env::current_exe().unwrap();
        assert_eq!(
            process.executable.as_deref(),
            Some(&*own.display().to_string())
        );
        assert!(process.netns.is_some());
        assert!(process.guest.is_none());
        assert_eq!(processes.look_up(0, 0, u64::MAX), Process::default());
        assert_eq!(processes.look_up(u32::MAX, 0, u64::MAX), Process::default());
        // At boot another process had this number.
        assert_eq!(processes.look_up(process::id(), 0, 0), Process::default());
    }

    #[test]
    fn whoever_executes_something_else_or_has_the_number_of_another_is_not_who_it_was() {
        let mut processes = processes();
        let mut child = process::Command::new("sh")
            .args(["-c", "read line; exec sleep 1000"])
            .stdin(process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let named = |name: &str| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
            exe.to_string_lossy().contains(name)
        };
        while named("qfence") {
            std::thread::yield_now();
        }
        let first = processes.look_up(pid, pid, u64::MAX);
        let mut again = |before: &Process, first_ns| {
            processes.look_again(Some(before.clone()), (pid, pid), (first_ns, u64::MAX))
        };
        assert_eq!(again(&first, u64::MAX), first);
        // Another process had the number at the first attempt, whether or not that was looked up.
        assert!(again(&first, 0).has_changed);
        assert!(again(&Process::default(), 0).has_changed);
        assert!(!again(&Process::default(), u64::MAX).has_changed);

        drop(child.stdin.take());
        while !named("sleep") && !named("coreutils") && !named("busybox") {
            std::thread::yield_now();
        }
        let then = again(&first, u64::MAX);
        assert!(then.has_changed && then.executable != first.executable);
        // That does not change any more. For a process that is gone, the last result is returned.
        assert_eq!(again(&then, u64::MAX), then);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(again(&then, u64::MAX), then);
    }

    #[test]
    fn what_is_known_is_bounded_and_there_once() {
        let mut processes = processes();
        let first = processes.known(b"/bin/true", EXECUTABLE);
        assert!(Arc::ptr_eq(
            &first,
            &processes.known(b"/bin/true", EXECUTABLE)
        ));
        for number in 0..10 * KNOWN {
            let path = format!("/{number}/{}", "\x01".repeat(4000));
            let known = processes.known(path.as_bytes(), EXECUTABLE);
            assert!(known.len() <= EXECUTABLE + "…".len());
        }
        assert!(processes.known.len() <= KNOWN);
    }
}
