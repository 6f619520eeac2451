//! Lists, signals and kills the processes of a cgroup.

use std::{
    fs, io,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Cgroup, is_gone};
use crate::base::process::looks::Looks;

/// The time between two looks at a cgroup that should become empty.
const POLL: Duration = Duration::from_millis(5);

impl Cgroup {
    /// The processes in it and below, in any order.
    ///
    /// # Errors
    /// Errors of reading. A cgroup that is gone has no processes.
    pub fn pids(&self) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        for directory in self.subtree()? {
            // A cgroup in threaded mode has no readable list of processes; its threaded domain above has.
            match fs::read_to_string(directory.join("cgroup.procs")) {
                Ok(text) => {
                    pids.extend(
                        text.lines()
                            .filter_map(|l| l.parse().ok())
                            .map(Pid::from_raw),
                    );
                }
                Err(error) if is_gone(&error) || is_threaded(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// The threads in it and below, in any order. A thread of a pid namespace that is not visible here is 0.
    ///
    /// This includes threads of processes whose first thread has ended. Such processes are in no list of processes
    /// (`css_task_iter_advance` in kernel/cgroup/cgroup.c).
    ///
    /// # Errors
    /// Errors of reading. A cgroup that is gone has no threads.
    pub fn threads(&self) -> io::Result<Vec<i32>> {
        let mut threads = Vec::new();
        for directory in self.subtree()? {
            match fs::read_to_string(directory.join("cgroup.threads")) {
                Ok(text) => threads.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(threads)
    }

    /// Whether a live process is in it or below.
    ///
    /// # Errors
    /// Errors of reading. A cgroup that is gone has no processes.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.directory.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to every process in it and below.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        for pid in self.pids()? {
            // A process of another pid namespace is listed as 0, and kill(0) would signal this process group.
            if pid.as_raw() > 0 {
                // It may have ended since.
                let _ = kill(pid, signal);
            }
        }
        Ok(())
    }

    /// Kills every process in it and below, and waits until none is left.
    ///
    /// # Errors
    /// If some are left after `patience`.
    pub fn kill_all(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let kill_file = self.directory.join("cgroup.kill");
        while self.is_populated()? {
            // Linux 5.14 kills all with one write, which no fork escapes. On older kernels the loop kills repeatedly.
            let _ = fs::write(&kill_file, "1");
            // `__cgroup_kill` in kernel/cgroup/cgroup.c skips a process whose first thread has ended. A signal to any
            // other thread reaches it.
            for thread in self.threads()? {
                // 0 is a thread of another pid namespace, and kill(0) would signal this process group.
                if thread > 0 {
                    // It may have ended since.
                    let _ = kill(Pid::from_raw(thread), Signal::SIGKILL);
                }
            }
            if Instant::now() >= deadline {
                bail!(
                    "the processes in {} were killed and do not end: {}",
                    self.directory.display(),
                    describe(&self.threads()?, &mut Looks::default())
                );
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it has no processes; returns whether that happened in time.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn wait_empty(&self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while self.is_populated()? {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(POLL);
        }
        Ok(true)
    }
}

/// Describes the threads that are left in a cgroup.
fn describe(threads: &[i32], looks: &mut Looks) -> String {
    let (hidden, seen): (Vec<i32>, Vec<i32>) = threads.iter().partition(|tid| **tid <= 0);
    let mut words = vec![looks.describe_all(&seen)];
    words.retain(|words| !words.is_empty());
    if !hidden.is_empty() {
        words.push(format!(
            "{} threads of a pid namespace that is not visible here",
            hidden.len()
        ));
    }
    if words.is_empty() {
        return "the kernel counts processes but lists none: they are ending".to_owned();
    }
    words.join(", ")
}

fn is_threaded(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_described_whoever_it_is() {
        let own = i32::try_from(std::process::id()).unwrap();
        let describe = |threads: &[i32]| describe(threads, &mut Looks::here());
        let described = describe(&[own, 0, 0]);
        assert!(
            described.contains(&format!("process {own} (")),
            "{described}"
        );
        let hidden = "2 threads of a pid namespace that is not visible here";
        assert!(described.ends_with(hidden), "{described}");
        assert!(describe(&[]).contains("they are ending"));
        assert!(describe(&[own; 9]).ends_with("4 more threads"));
    }
}
