//! The processes in a cgroup that are not the workload's.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::files;
use crate::base::{files::bounded, printable::printable};

/// The most cgroups that are looked at.
const CGROUPS: usize = 10_000;

/// The most bytes of a list of processes. That of the children of a thread is as long.
const LIST: u64 = 16 << 20;

/// The most processes that are followed from the first one.
const PROCESSES: usize = 100_000;

/// The most bytes of the name of a process.
const NAME: u64 = 64;

/// Processes in the cgroup at `directory` and below it that neither are the process `first` nor were started by it or
/// its descendants, as name and number.
///
/// # Errors
/// If the processes of the cgroup cannot be listed.
pub fn strangers(directory: &Path, first: Pid, proc: &Path) -> Result<Vec<String>> {
    let members = members(directory)?;
    let own = descendants(first.as_raw(), proc);
    let strangers = members.difference(&own);
    Ok(strangers.map(|pid| named(*pid, proc)).collect())
}

/// The processes in a cgroup and below it.
fn members(directory: &Path) -> Result<BTreeSet<i32>> {
    let mut members = BTreeSet::new();
    let mut left = VecDeque::from([directory.to_owned()]);
    let mut seen = 0;
    while let Some(cgroup) = left.pop_front() {
        seen += 1;
        ensure!(
            seen <= CGROUPS,
            "{} has more than {CGROUPS} cgroups",
            directory.display()
        );
        members.extend(list(&cgroup.join("cgroup.procs")).unwrap_or_default());
        // Only the cgroup itself must exist: others may have been removed meanwhile.
        let below = files::directories(&cgroup)?;
        left.extend(below.into_iter().map(|name| cgroup.join(name)));
    }
    let procs = directory.join("cgroup.procs");
    fs::metadata(&procs).with_context(|| format!("cannot read {}", procs.display()))?;
    Ok(members)
}

/// A process and all that it or its descendants started, as far as their parents live.
fn descendants(first: i32, proc: &Path) -> BTreeSet<i32> {
    let mut known = BTreeSet::from([first]);
    let mut left = VecDeque::from([first]);
    while let Some(pid) = left.pop_front() {
        let threads = proc.join(pid.to_string()).join("task");
        for thread in files::directories(&threads).unwrap_or_default() {
            let children = threads.join(thread).join("children");
            for child in list(&children).unwrap_or_default() {
                if known.len() < PROCESSES && known.insert(child) {
                    left.push_back(child);
                }
            }
        }
    }
    known
}

/// The numbers in a file. 0 is a process that is not visible here.
fn list(path: &Path) -> Option<Vec<i32>> {
    let text = bounded::read(path, LIST).ok()?;
    let text = String::from_utf8(text).ok()?;
    Some(
        text.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect(),
    )
}

fn named(pid: i32, proc: &Path) -> String {
    let name = bounded::read(&proc.join(pid.to_string()).join("comm"), NAME).unwrap_or_default();
    format!("{} ({pid})", printable(name.trim_ascii_end()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A cgroup with two others below it.
    fn cgroup(members: [&[i32]; 3]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (place, members) in ["", "a", "a/b"].into_iter().zip(members) {
            let cgroup = dir.path().join(place);
            fs::create_dir_all(&cgroup).unwrap();
            let text: String = members.iter().map(|pid| format!("{pid}\n")).collect();
            fs::write(cgroup.join("cgroup.procs"), text).unwrap();
        }
        dir
    }

    #[test]
    fn descendants_are_the_workloads_and_others_are_named() {
        let own = i32::try_from(std::process::id()).unwrap();
        // A shell with a child.
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000; :"])
            .spawn()
            .unwrap();
        let shell_pid = i32::try_from(shell.id()).unwrap();
        let proc = Path::new("/proc");
        let child = loop {
            let all = descendants(shell_pid, proc);
            if let Some(child) = all.into_iter().find(|pid| *pid != shell_pid) {
                break child;
            }
            std::thread::yield_now();
        };
        let dir = cgroup([&[shell_pid], &[], &[child]]);
        let of = |first| strangers(dir.path(), Pid::from_raw(first), proc).unwrap();
        assert_eq!(of(shell_pid), [""; 0]);
        assert_eq!(of(own), [""; 0]);
        assert_eq!(of(child), [format!("sh ({shell_pid})")]);
        shell.kill().unwrap();
        shell.wait().unwrap();
        nix::sys::signal::kill(Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    #[test]
    fn a_process_that_is_not_visible_is_a_stranger() {
        let dir = cgroup([&[7], &[0], &[]]);
        let none = tempfile::tempdir().unwrap();
        let strangers = strangers(dir.path(), Pid::from_raw(7), none.path()).unwrap();
        assert_eq!(strangers, [" (0)"]);
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(strangers(dir.path(), Pid::this(), Path::new("/proc")).is_err());
    }
}
