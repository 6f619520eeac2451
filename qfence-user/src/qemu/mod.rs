//! The networks of a guest, as the command configures them if it starts a QEMU, and what this QEMU needs. Pure logic on
//! the words of the command, and on the configuration files that they name.
//!
//! | module | its one job |
//! |---|---|
//! | [`emulator`] | finds the QEMU in the command |
//! | [`options`] | splits words into options and values |
//! | [`syntax`] | the options whose values are read, and the syntax of each |
//! | [`parameters`] | splits a value into keys: `key=value,…`, and JSON |
//! | [`readconfig`] | splits a configuration file into sections |
//! | [`configuration`] | collects the objects that QEMU is told to create |
//! | [`chardev`] | the peer of a character device |
//! | [`clients`] | the servers that QEMU connects to |
//! | [`doors`] | side doors: networks that the fence does not see |
//! | [`taps`] | tap devices by name, which qfence opens for QEMU |
//! | [`guestfwd`] | the targets of `guestfwd` |
//! | [`slirp`] | the guest's address of the host, and the flows of the guest |
//! | [`needs`] | what a QEMU needs under `--strict` |
//! | [`executables`] | the files that words name |
pub mod executables;

pub mod chardev;
pub mod clients;
pub mod configuration;
pub mod doors;
pub mod emulator;
pub mod guestfwd;
pub mod needs;
pub mod options;
pub mod parameters;
pub mod readconfig;
pub mod slirp;
pub mod syntax;
pub mod taps;

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use self::{
    clients::Client, doors::Door, emulator::Emulator, guestfwd::Forward, options::Part,
    slirp::Guest, taps::Tap,
};

/// The result of an inspection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The networks that the fence does not see.
    pub doors: Vec<Door>,
    /// Tap devices, which can be fenced.
    pub taps: Vec<Tap>,
    /// Targets of `guestfwd`, which the fence judges like any other destination.
    pub forwards: Vec<Forward>,
    /// Whether a QEMU goes on in the background (`-daemonize`).
    pub daemonizes: bool,
    /// Other servers that QEMU connects to.
    pub clients: Vec<Client>,
    /// The QEMU, if there is one and all of its configuration could be read.
    pub qemu: Option<Found>,
}

/// A QEMU that a command names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its position among the words of the command: 0 without a wrapper.
    pub index: usize,
    /// The guest's networks in its configuration.
    pub guest: Guest,
}

/// Inspects a command. `resolve` returns the file that a word names, `read` the contents of a file.
///
/// A QEMU that a script starts, and changes by QEMU's monitor, cannot be found here.
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
    findings.daemonizes = options::split(arguments)
        .iter()
        .any(|part| matches!(part, Part::Option(given) if given.name() == "daemonize"));
    let (items, unreadable) = configuration::gather(arguments, &read);
    if emulator == Emulator::Qemu && unreadable.is_empty() {
        findings.qemu = Some(Found {
            index: command.len() - arguments.len() - 1,
            guest: Guest::of(&items),
        });
    }
    findings.doors.extend(unreadable);
    let first = command.len() - arguments.len();
    for item in &items {
        findings.doors.extend(doors::of(item, &items, &read));
        match taps::of(item, &items, first) {
            Some(Ok(tap)) => findings.taps.push(tap),
            Some(Err(door)) => findings.doors.push(door),
            None => {}
        }
        let (forwards, doors) = guestfwd::of(item, &items);
        findings.forwards.extend(forwards);
        findings.clients.extend(clients::of(item));
        findings.doors.extend(doors);
    }
    findings
}

#[cfg(test)]
mod tests;
