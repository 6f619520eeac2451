//! The flags of an open file of another process, in /proc/PID/fdinfo (proc_pid_fdinfo(5)).

use std::fs;

use nix::{fcntl::OFlag, unistd::Pid};

use crate::base::{files::bounded, paths::Paths};

/// More bytes than the description of a socket has.
const DESCRIPTION: u64 = 4096;

/// Whether a descriptor of a process is a socket that is closed when the process executes a program. `false` if that is not
/// known. Nothing else is described: the description of an epoll instance can block (`base/process/open_taps.rs`).
#[must_use]
pub fn is_closed_on_exec(pid: Pid, descriptor: i32, paths: &Paths) -> bool {
    let process = paths.proc.join(pid.to_string());
    let descriptor = descriptor.to_string();
    let path = fs::read_link(process.join("fd").join(&descriptor));
    let is_socket = path.is_ok_and(|path| path.to_string_lossy().starts_with("socket:["));
    let description = || bounded::read(&process.join("fdinfo").join(&descriptor), DESCRIPTION);
    is_socket && description().is_ok_and(|text| has_flag(&text, OFlag::O_CLOEXEC))
}

/// Whether a description has a flag of open(2). The flags are an octal number (`seq_show` in fs/proc/fd.c).
fn has_flag(description: &[u8], flag: OFlag) -> bool {
    let mut lines = description.split(|byte| *byte == b'\n');
    let digits = lines.find_map(|line| line.strip_prefix(b"flags:"));
    let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
    let flags = digits.and_then(|digits| i32::from_str_radix(digits.trim(), 8).ok());
    flags.is_some_and(|flags| OFlag::from_bits_retain(flags).contains(flag))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd as _};

    use super::*;

    #[test]
    fn a_description_tells_flags() {
        let tap = b"pos:\t0\nflags:\t02004002\nmnt_id:\t40\niff:\ttap0\n";
        assert!(has_flag(tap, OFlag::O_CLOEXEC));
        let socket = b"pos:\t0\nflags:\t04002\nmnt_id:\t9\nino:\t20\n";
        assert!(!has_flag(socket, OFlag::O_CLOEXEC));
        for unknown in [&b""[..], b"flags:\t", b"flags:\t9\n", b"pos:\t02000000\n"] {
            assert!(!has_flag(unknown, OFlag::O_CLOEXEC), "{unknown:?}");
        }
    }

    #[test]
    fn own_sockets_are_described_and_nothing_else() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let paths = Paths::default();
        let is_closed = |number| is_closed_on_exec(Pid::this(), number, &paths);
        assert!(is_closed(socket.as_raw_fd()));
        let copied = nix::unistd::dup(&socket).unwrap();
        assert!(!is_closed(copied.as_raw_fd()));
        let file = tempfile::tempfile().unwrap();
        assert!(!is_closed(file.as_raw_fd()));
        assert!(!is_closed(1 << 20));
    }
}
