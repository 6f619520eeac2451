//! Finds the QEMU process that a command starts, and the flows of its guest.
//!
//! A process can choose its name, and can hide its executable. So `dialled` is reported for the process that qfence
//! itself has started. For other processes it is reported only if the command starts the QEMU by a wrapper, or if the
//! QEMU has moved to the background; the process is then identified by the file of its executable.

use std::{net::IpAddr, path::Path};

use qfence_common::{AttemptKey, Hook, Origin, event::GUEST};
use serde::{Deserialize, Serialize};

use super::{
    proc::{Directory, ProcessId, Stat},
    stats::Stats,
};
use crate::qemu::{
    executables::FileId,
    slirp::{self, Guest},
};

/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// `IPPROTO_UDP`.
const UDP: u32 = 17;
/// The port of nameservers.
const DNS: u32 = 53;

/// A QEMU that a command starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// The guest's networks.
    pub guest: Guest,
    /// Whether the command itself is the QEMU, without a wrapper such as `nice`.
    pub is_command: bool,
    /// The executable file of the QEMU that the command names, if it was found.
    pub file: Option<FileId>,
    /// The process that qfence has started, after the start.
    pub process: Option<ProcessId>,
}

impl Qemu {
    /// Whether a process of the fence is this QEMU.
    pub(super) fn is(
        &self,
        command: Option<ProcessId>,
        proc: &Path,
        stats: &Stats,
        process: &Stat,
        executable: &Path,
    ) -> bool {
        let Some(command) = command else {
            return false;
        };
        let executable_file = |pid| Directory::new(proc, pid).running(pid).executable_file();
        let is_file = || self.file.is_some() && executable_file(process.id.pid) == self.file;
        if process.id == command {
            // The command can be a script (`kvm`), which executes a file that the command does not name. So the
            // command's own process is identified by the name of its executable.
            return if self.is_command {
                slirp::is_qemu(executable)
            } else {
                is_file()
            };
        }
        let has_command_ended = || {
            // If the lookup fails, the process may still be running.
            stats
                .of(command.pid)
                .is_ok_and(|now| now.is_none_or(|now| now.id != command || now.has_ended))
        };
        // A wrapper that has itself become the QEMU does not start another one.
        let is_wrapper = || executable_file(command.pid) != self.file;
        let is_wrapped = || !self.is_command && process.parent == command.pid && is_wrapper();
        (has_command_ended() || is_wrapped()) && is_file()
    }
}

/// The address that the guest dialled, if this attempt of QEMU is the guest's.
pub(super) fn dialled(
    guest: &Guest,
    key: &AttemptKey,
    origin: &Origin,
    destination: IpAddr,
) -> Option<IpAddr> {
    let is_guests = match key.protocol {
        TCP => origin.flags & GUEST != 0,
        // libslirp sends datagrams without connecting. QEMU connects its own sockets, except for some networks.
        UDP => {
            let hook = Hook::from_number(key.hook);
            matches!(hook, Some(Hook::Sendmsg4 | Hook::Sendmsg6)) && !guest.datagrams_are_qemus
        }
        _ => false,
    };
    // The guest's address of its nameserver can also be translated to the loopback address.
    if is_guests && key.port != DNS {
        guest.dialled(destination)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr, os::unix::fs::symlink};

    use qfence_common::address::from_v4;

    use super::*;
    use crate::record::line::tests::seen;

    fn guest(datagrams_are_qemus: bool) -> Guest {
        Guest {
            datagrams_are_qemus,
            ..Guest::of(&[])
        }
    }

    #[test]
    fn only_flows_of_the_guests_were_dialled() {
        for (hook, protocol, port, flags, own, says) in [
            (Hook::Connect4, TCP, 22, GUEST, false, true),
            (Hook::Egress, TCP, 22, GUEST, false, true),
            (Hook::Connect4, TCP, 22, GUEST, true, true),
            (Hook::Connect4, TCP, 22, 0, false, false),
            (Hook::Sendmsg4, UDP, 22, 0, false, true),
            (Hook::Sendmsg4, UDP, 22, 0, true, false),
            (Hook::Connect4, UDP, 22, 0, false, false),
            (Hook::Egress, UDP, 22, 0, false, false),
            (Hook::Sendmsg4, UDP, 53, 0, false, false),
            (Hook::Egress, 1, 0, 0, false, false),
        ] {
            let (key, mut origin) = seen(hook, from_v4([127, 0, 0, 1]), protocol, port, 1);
            origin.flags = flags;
            let address = dialled(&guest(own), &key, &origin, Ipv4Addr::LOCALHOST.into());
            let expected = says.then_some(Ipv4Addr::new(10, 0, 2, 2).into());
            assert_eq!(
                address, expected,
                "{hook:?} {protocol} {port} {flags} {own}"
            );
        }
    }

    /// A /proc that contains processes with these numbers, states, parents and executables.
    fn proc(processes: &[(u32, &str, u32, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (pid, state, parent, file) in processes {
            let own = dir.path().join(format!("{pid}/task/{pid}"));
            fs::create_dir_all(&own).unwrap();
            let zeros = "0 ".repeat(15);
            // "Z": the process has ended. "z": only its first thread has ended.
            let threads = 1 + u32::from(*state == "z");
            let state = state.to_uppercase();
            let stat = format!(
                "{pid} (x) {state} {parent} {zeros}{threads} 0 {} 0\n",
                pid * 10
            );
            fs::write(own.join("stat"), stat).unwrap();
            let file = dir.path().join(file);
            fs::write(&file, "").unwrap();
            symlink(file, own.join("exe")).unwrap();
        }
        dir
    }

    #[test]
    fn it_is_the_process_that_was_started_or_one_of_its_file_where_another_must_be() {
        const QEMU: &str = "qemu-system-x86_64";
        for (is_command, processes, pid, is) in [
            // The command itself, also if it is a script that executes another file; and no other process.
            (true, [(4, "S", 1, QEMU), (5, "S", 4, QEMU)], 4, true),
            (true, [(4, "S", 1, "kvm"), (5, "S", 4, QEMU)], 4, true),
            (true, [(4, "S", 1, "sh"), (5, "S", 4, QEMU)], 4, false),
            (true, [(4, "S", 1, QEMU), (5, "S", 4, QEMU)], 5, false),
            (true, [(4, "S", 1, QEMU), (5, "S", 1, QEMU)], 5, false),
            // In the background.
            (true, [(4, "Z", 1, QEMU), (5, "S", 1, QEMU)], 5, true),
            (true, [(3, "S", 1, QEMU), (5, "S", 1, QEMU)], 5, true),
            (true, [(4, "Z", 1, QEMU), (5, "S", 1, "kvm")], 5, false),
            (true, [(4, "z", 1, QEMU), (5, "S", 1, QEMU)], 5, false),
            (true, [(4, "z", 1, QEMU), (5, "S", 1, QEMU)], 4, true),
            // With a wrapper, which executes QEMU or starts it as a child.
            (false, [(4, "S", 1, QEMU), (5, "S", 4, QEMU)], 4, true),
            (false, [(4, "S", 1, "nice"), (5, "S", 4, QEMU)], 4, false),
            (false, [(4, "S", 1, QEMU), (5, "S", 4, QEMU)], 5, false),
            (false, [(4, "S", 1, "strace"), (5, "S", 4, QEMU)], 5, true),
            (false, [(4, "S", 1, "strace"), (5, "S", 4, "kvm")], 5, false),
            (false, [(4, "S", 1, "strace"), (5, "S", 9, QEMU)], 5, false),
        ] {
            let proc = proc(&processes);
            let file = FileId::of(&proc.path().join(QEMU));
            let qemu = Qemu {
                guest: guest(false),
                is_command,
                file,
                process: None,
            };
            let command = ProcessId {
                pid: 4,
                started: 40,
            };
            let stats = Stats::here(proc.path());
            let directory = Directory::new(proc.path(), pid);
            let executable = directory.running(pid).executable().unwrap();
            let stat = directory.stat().unwrap();
            let found = qemu.is(Some(command), proc.path(), &stats, &stat, &executable);
            assert_eq!(found, is, "{is_command} {processes:?} {pid}");
            assert!(!qemu.is(None, proc.path(), &stats, &stat, &executable));

            // If the command cannot be looked up, it counts as running. Other processes with its file are not the QEMU.
            stats.pause();
            let found = qemu.is(Some(command), proc.path(), &stats, &stat, &executable);
            let is_wrapped = !is_command && stat.parent == command.pid;
            let is = is && (pid == command.pid || is_wrapped);
            assert_eq!(found, is, "paused: {is_command} {processes:?} {pid}");
        }
    }
}
