//! What the kernel says of an open file of another process, in /proc/PID/fdinfo (proc_pid_fdinfo(5)).

use std::path::Path;

use nix::{fcntl::OFlag, unistd::Pid};

use crate::base::{files::bounded, paths::Paths};

/// More bytes than the description of a socket or tap device has.
const DESCRIPTION: u64 = 4096;

/// The name of the tap device to which a descriptor of a process is attached; `None` if there is none.
#[must_use]
pub fn name_of_device(pid: Pid, descriptor: i32, paths: &Paths) -> Option<String> {
    let name = tap_device(&read(pid, descriptor, paths))?;
    Some(String::from_utf8_lossy(&name).into_owned())
}

/// Whether a descriptor of a process is closed when the process executes a program. `false` if that is not known.
#[must_use]
pub fn is_closed_on_exec(pid: Pid, descriptor: i32, paths: &Paths) -> bool {
    has_flag(&read(pid, descriptor, paths), OFlag::O_CLOEXEC)
}

/// Whether a file is a tap device that is attached. `description` is its path in a directory fdinfo.
pub(super) fn is_tap(description: &Path) -> bool {
    let text = bounded::read(description, DESCRIPTION).unwrap_or_default();
    tap_device(&text).is_some()
}

fn read(pid: Pid, descriptor: i32, paths: &Paths) -> Vec<u8> {
    let directory = paths.proc.join(pid.to_string()).join("fdinfo");
    bounded::read(&directory.join(descriptor.to_string()), DESCRIPTION).unwrap_or_default()
}

/// The value of a line of a description.
fn value<'a>(description: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut lines = description.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(key))?;
    Some(value.strip_prefix(b"\t").unwrap_or(value))
}

/// The name of the attached tap device (`tun_chr_show_fdinfo` in drivers/net/tun.c).
fn tap_device(description: &[u8]) -> Option<Vec<u8>> {
    value(description, b"iff:").map(<[u8]>::to_vec)
}

/// Whether a description has a flag of open(2). The flags are an octal number (`seq_show` in fs/proc/fd.c).
fn has_flag(description: &[u8], flag: OFlag) -> bool {
    let digits = value(description, b"flags:").and_then(|value| str::from_utf8(value).ok());
    let flags = digits.and_then(|digits| i32::from_str_radix(digits.trim(), 8).ok());
    flags.is_some_and(|flags| OFlag::from_bits_retain(flags).contains(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_tells_flags_and_tap_device() {
        let tap = b"pos:\t0\nflags:\t02004002\nmnt_id:\t40\niff:\ttap0\n";
        assert_eq!(tap_device(tap).unwrap(), b"tap0");
        assert!(has_flag(tap, OFlag::O_CLOEXEC));
        let socket = b"pos:\t0\nflags:\t04002\nmnt_id:\t9\nino:\t20\n";
        assert_eq!(tap_device(socket), None);
        assert!(!has_flag(socket, OFlag::O_CLOEXEC));
        for unknown in [&b""[..], b"flags:\t", b"flags:\t9\n", b"pos:\t02000000\n"] {
            assert!(!has_flag(unknown, OFlag::O_CLOEXEC), "{unknown:?}");
        }
    }

    #[test]
    fn own_descriptors_are_described() {
        let file = tempfile::tempfile().unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let paths = Paths::default();
        assert!(is_closed_on_exec(Pid::this(), number, &paths));
        let copied = nix::unistd::dup(&file).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&copied);
        assert!(!is_closed_on_exec(Pid::this(), number, &paths));
        assert!(!is_closed_on_exec(Pid::this(), 1 << 20, &paths));
    }
}
