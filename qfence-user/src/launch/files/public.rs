//! The files that every command keeps: those that belong to root and that every user may read, and devices that give
//! access to nothing.

use std::{
    io::{self, IsTerminal as _},
    os::fd::{BorrowedFd, RawFd},
    path::Path,
};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::rules::{Right, Rule};

/// Directories and files to read, where they exist. Not among them: what users write to (/home, /root, /tmp, /run, /srv,
/// /media, /mnt), and most of /var.
const READ: &[&str] = &[
    "/bin",
    "/etc",
    "/gnu",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/opt",
    "/sbin",
    "/snap",
    "/sys",
    "/usr",
    // A process reads nothing of others here (the Landlock domain), except what everybody may know.
    "/proc",
    // The caches and databases of package managers, fonts and D-Bus's machine id.
    "/var/cache/apt",
    "/var/cache/fontconfig",
    "/var/lib/apt",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg",
    // /etc/resolv.conf leads to these. A rule on the file would end when it is replaced.
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/run/connman",
];

/// Devices to read and write.
const DEVICES: &[&str] = &[
    "/dev/full",
    "/dev/kvm",
    "/dev/null",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// The rules of these files, and of the standard streams.
///
/// # Errors
/// If one of them exists and cannot be opened.
pub(super) fn rules() -> Result<Vec<Rule>> {
    let read = READ.iter().map(|path| (*path, Right::Read));
    let devices = DEVICES.iter().map(|path| (*path, Right::Change));
    let mut rules = Vec::new();
    for (path, right) in read.chain(devices) {
        match Rule::open(Path::new(path), right) {
            Ok(rule) => rules.push(rule),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot open {path}")),
        }
    }
    for number in 0..3 {
        rules.extend(stream(number));
    }
    Ok(rules)
}

/// The rule of a standard stream, which the command can open under a name (/dev/stderr): a terminal, or a file that is
/// open for writing. `None` for others, and for what has no path in this mount namespace.
fn stream(number: RawFd) -> Option<Rule> {
    let path = format!("/proc/self/fd/{number}");
    // SAFETY: the descriptor is only asked for its flags and its type; it is open, or that fails.
    let stream = unsafe { BorrowedFd::borrow_raw(number) };
    if stream.is_terminal() {
        return Rule::open(Path::new(&path), Right::Change).ok();
    }
    let flags = OFlag::from_bits_retain(fcntl(stream, FcntlArg::F_GETFL).ok()?);
    let is_written = flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR);
    let rule = Rule::open(Path::new(&path), Right::Write).ok()?;
    (is_written && rule.is_regular()).then_some(rule)
}
