//! What /proc says of a process that tried something, as long as it is there.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::PathBuf,
};

use nix::sys::stat::stat;

use crate::{
    qemu::slirp::{self, Network},
    say::printable,
};

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO` in linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Looks processes up.
#[derive(Clone, Debug)]
pub struct Processes {
    /// `None` where /proc numbers processes otherwise than the programs do: in a pid namespace.
    proc: Option<PathBuf>,
}

/// What is known of a process beside what the programs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The path of its program, safe to print.
    pub executable: Option<String>,
    /// The path of its cgroup in the cgroup2 hierarchy, as this process sees it.
    pub cgroup_path: Option<String>,
    /// The inode of its network namespace.
    pub netns: Option<u64>,
    /// The user networks of a QEMU's guest.
    pub networks: Vec<Network>,
}

impl Processes {
    /// Looks them up in `proc`, if its process numbers are those of the programs.
    #[must_use]
    pub fn new(proc: PathBuf) -> Self {
        let namespace = stat(&proc.join("self/ns/pid")).map(|file| file.st_ino);
        let is_initial = namespace == Ok(INITIAL_PID_NAMESPACE);
        Self {
            proc: is_initial.then_some(proc),
        }
    }

    /// What there is to know of the process with that number; of one that is gone, nothing.
    #[must_use]
    pub fn look_up(&self, pid: u32) -> Process {
        let Some(directory) = self.proc.as_ref().filter(|_| pid != 0) else {
            return Process::default();
        };
        let directory = directory.join(pid.to_string());
        let executable = fs::read_link(directory.join("exe")).ok();
        let cgroup = fs::read_to_string(directory.join("cgroup")).unwrap_or_default();
        let is_qemu = executable.as_deref().is_some_and(slirp::is_qemu);
        let words = || {
            let words = fs::read(directory.join("cmdline")).unwrap_or_default();
            let words = words.split(|byte| *byte == 0).skip(1);
            words
                .map(|word| OsString::from_vec(word.to_vec()))
                .collect::<Vec<_>>()
        };
        Process {
            executable: executable.map(|path| printable(path.as_os_str().as_bytes())),
            cgroup_path: cgroup
                .lines()
                .find_map(|line| line.strip_prefix("0::"))
                .map(|path| printable(path.as_bytes())),
            netns: fs::metadata(directory.join("ns/net"))
                .ok()
                .map(|file| file.ino()),
            networks: if is_qemu {
                slirp::networks(&words())
            } else {
                Vec::new()
            },
        }
    }
}

impl Process {
    /// The address that a guest dialled, if its process is a QEMU whose user network leads it to
    /// `destination` from another one.
    #[must_use]
    pub fn dialled(&self, destination: IpAddr) -> Option<IpAddr> {
        let mut dialled = self
            .networks
            .iter()
            .filter_map(|network| network.dialled(destination));
        let first = dialled.next()?;
        // In networks that differ there is no telling in which of them it was.
        dialled.all(|other| other == first).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn this_process_is_found_and_one_that_is_not_there_is_not() {
        let processes = Processes {
            proc: Some("/proc".into()),
        };
        let process = processes.look_up(process::id());
        let own = std::env::current_exe().unwrap();
        assert_eq!(process.executable, Some(own.display().to_string()));
        assert!(process.netns.is_some());
        assert!(process.networks.is_empty());
        assert_eq!(processes.look_up(0), Process::default());
        assert_eq!(processes.look_up(u32::MAX), Process::default());
    }
}
