//! Who tried something: what there is to know of a process as long as it is there.

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

/// How much of the path of an executable is kept, in bytes: a process chooses it.
const EXECUTABLE: usize = 512;

/// How much of the path of a cgroup is kept, in bytes.
const CGROUP: usize = 1024;

/// How many different ones are known at once, so that what processes have in common is there once.
const KNOWN: usize = 256;

/// Looks processes up.
#[derive(Debug)]
pub struct Processes {
    /// `None` where /proc numbers processes otherwise than the programs do: in a pid namespace.
    proc: Option<PathBuf>,
    /// Where the state of a process is read.
    stats: Stats,
    /// The QEMU that the command is, if it is one.
    qemu: Option<Qemu>,
    guest: Option<Arc<Guest>>,
    /// The process of the command, once there is one.
    command: Arc<OnceLock<ProcessId>>,
    /// Paths that were looked up of late.
    known: HashSet<Arc<str>>,
}

/// What is known of a process beside what the programs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Which it is; `None` of one that is not known.
    id: Option<ProcessId>,
    /// Whether it is not as it was when the attempt was made that it is looked up for, so that what the programs saw of
    /// it then is not true any more: another process has its number, or it has executed another program.
    pub has_changed: bool,
    /// The path of its executable, safe to print, and shortened.
    pub executable: Option<Arc<str>>,
    /// The path of its cgroup in the cgroup2 hierarchy, as this process sees it, likewise. This and the next are those
    /// of the thread, as long as it runs.
    pub cgroup_path: Option<Arc<str>>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
    /// Its guest, if it is the QEMU that the command is.
    guest: Option<Arc<Guest>>,
}

impl Processes {
    /// Looks them up in `proc`, if its process numbers are those of the programs. `qemu` is what the command is, if it
    /// is one.
    #[must_use]
    pub fn new(proc: PathBuf, qemu: Option<Qemu>) -> Self {
        let namespace = stat(&proc.join("self/ns/pid")).map(|file| file.st_ino);
        let is_initial = namespace == Ok(INITIAL_PID_NAMESPACE);
        let command = OnceLock::new();
        if let Some(process) = qemu.as_ref().and_then(|qemu| qemu.process) {
            // It is new.
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

    /// Gets ready: whoever tries something may be gone soon after.
    pub fn prepare(&self) {
        if self.proc.is_some() {
            self.stats.prepare();
        }
    }

    /// Where to say which process the command is.
    #[must_use]
    pub fn command(&self) -> Arc<OnceLock<ProcessId>> {
        Arc::clone(&self.command)
    }

    /// What there is to know of the process that had that number at that moment, in nanoseconds since boot, and of its
    /// thread `tid` as long as that runs; of one that is gone, nothing.
    #[must_use]
    pub fn look_up(&mut self, pid: u32, tid: u32, boot_ns: u64) -> Process {
        let proc = self.proc.as_ref().filter(|_| pid != 0);
        self.look_at(proc.cloned(), (pid, tid), boot_ns)
            .unwrap_or_default()
    }

    /// What there is to know of whoever had that number at `last_ns`, in nanoseconds since boot, if `before` is what was
    /// known when somebody of that number was seen first, at `first_ns`. Of one that is gone, what was known.
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
            // One that has ended has no executable any more.
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
        // Last: who has the number now had it since that moment, or it is another's.
        let stat = self.stats.of(pid).ok()??;
        if stat.id.is_younger_than(boot_ns) {
            return None;
        }
        let command = self.command.get().copied();
        let is_qemu = |qemu: &Qemu| {
            let executable = executable.as_deref();
            executable.is_some_and(|executable| {
                qemu.is(command, &proc, &self.stats, &stat, executable)
                    // More was read of it.
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

    /// A path, safe to print and shortened; the same one if it is known.
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
    /// Whether that is known to be another process, or one that executes another program.
    fn is_another(&self, now: &Self) -> bool {
        let executes = self.executable.is_some() && self.executable != now.executable;
        self.id.is_some() && (self.id != now.id || executes)
    }

    /// The address that a guest dialled, if its process is the QEMU whose user network leads it to `destination` from
    /// another one, and the attempt was the guest's.
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
        // Whoever had the number then was another one.
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
        // Another had the number when it was seen first, whether that was looked up or not.
        assert!(again(&first, 0).has_changed);
        assert!(again(&Process::default(), 0).has_changed);
        assert!(!again(&Process::default(), u64::MAX).has_changed);

        drop(child.stdin.take());
        while !named("sleep") && !named("coreutils") && !named("busybox") {
            std::thread::yield_now();
        }
        let then = again(&first, u64::MAX);
        assert!(then.has_changed && then.executable != first.executable);
        // It stays so; of one that is gone what was known last is said.
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
