//! The files that every command keeps: those that belong to root and that every user may read, and devices that give
//! access to nothing.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use anyhow::{Context as _, Result};

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

/// The rules of these files, and of the terminals that are standard streams: the command can open those under their names.
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
    let streams = [
        (0, io::stdin().is_terminal()),
        (1, io::stdout().is_terminal()),
        (2, io::stderr().is_terminal()),
    ];
    for (number, _) in streams.into_iter().filter(|(_, is_terminal)| *is_terminal) {
        // A terminal of another mount namespace has no path here.
        if let Ok(rule) = Rule::open(Path::new(&format!("/proc/self/fd/{number}")), Right::Change) {
            rules.push(rule);
        }
    }
    Ok(rules)
}
