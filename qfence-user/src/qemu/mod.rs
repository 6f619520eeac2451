//! What a command says of its guest's networks, if it is a QEMU: pure logic over its words and the
//! configuration files that they name.
//!
//! | module | its one job |
//! |---|---|
//! | [`emulator`] | which word is the QEMU |
//! | [`options`] | words to options and values |
//! | [`parameters`] | a value to keys: `key=value,…`, and JSON |
//! | [`readconfig`] | a configuration file to sections |
//! | [`configuration`] | all of that together: what QEMU is told to make |
//! | [`chardev`] | where a character device leads |
//! | [`doors`] | which of it is a network that the fence does not see |
//! | [`guestfwd`] | which targets the guest is led to |
//! | [`slirp`] | which address of the guest's leads to the host, and which flows are the guest's |
pub mod executables;

pub mod chardev;
pub mod configuration;
pub mod doors;
pub mod emulator;
pub mod guestfwd;
pub mod options;
pub mod parameters;
pub mod readconfig;
pub mod slirp;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use self::{doors::Door, emulator::Emulator, guestfwd::Forward, slirp::Guest};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What the fence does not see.
    pub doors: Vec<Door>,
    /// Targets that the fence judges like any other.
    pub forwards: Vec<Forward>,
    /// The QEMU itself, if it is one and all that it is told could be read.
    pub qemu: Option<Found>,
}

/// A QEMU that a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place among the words of the command: 0 if nothing wraps it.
    pub index: usize,
    /// What it is told of its guest's networks.
    pub guest: Guest,
}

/// Looks at a command. `resolve` says which file a word names, `read` what a file holds.
///
/// A QEMU that a script starts, and what a running one is told by its monitor, cannot be seen here.
#[must_use]
pub fn inspect(
    command: &[OsString],
    resolve: impl Fn(&OsStr) -> Option<PathBuf>,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Findings {
    let mut findings = Findings::default();
    let Some((emulator, arguments)) = emulator::find(command, resolve) else {
        return findings;
    };
    if emulator == Emulator::Qrap {
        findings.doors.push(Door::qrap());
    }
    let (items, unreadable) = configuration::gather(arguments, &read);
    if emulator == Emulator::Qemu && unreadable.is_empty() {
        findings.qemu = Some(Found {
            index: command.len() - arguments.len() - 1,
            guest: Guest::of(&items),
        });
    }
    findings.doors.extend(unreadable);
    for item in &items {
        findings.doors.extend(doors::of(item, &items, &read));
        let (forwards, doors) = guestfwd::of(item, &items);
        findings.forwards.extend(forwards);
        findings.doors.extend(doors);
    }
    findings
}

#[cfg(test)]
mod tests;
