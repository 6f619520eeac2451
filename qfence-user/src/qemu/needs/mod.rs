//! What a QEMU needs under `--strict`, by its own command line. An option that qfence does not know grants nothing: QEMU
//! then reports the file that it cannot open. Backing files are not read from images, because the guest writes images.
//!
//! The options are those of QEMU 7.2 to 10.1 (qemu-options.hx, qapi/).
//!
//! | module | the options of which it collects the needs |
//! |---|---|
//! | [`collector`] | none: it collects, and makes paths absolute |
//! | [`refused`] | none: an option that cannot work, and why |
//! | [`disks`] | disks, block nodes, names of images |
//! | [`firmware`] | firmware, kernels, tables, and other files that QEMU reads or writes |
//! | [`servers`] | character devices, VNC, SPICE, migration |
//! | [`network`] | networks |
//! | [`display`] | windows, and rendering |
//! | [`audio`] | audio |
//! | [`shares`] | shared directories |
//! | [`devices`] | devices of the host |
//! | [`objects`] | memory, credentials, random numbers, filters |
pub mod audio;
pub mod collector;
pub mod devices;
pub mod disks;
pub mod display;
pub mod firmware;
pub mod network;
pub mod objects;
pub mod refused;
pub mod servers;
pub mod shares;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

pub use self::refused::Refused;
use self::{collector::Collector, disks::Images};
use super::{
    configuration,
    emulator::{self, Emulator},
};
use crate::confinement::{Grants, Strict};

/// What a QEMU needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What it keeps. A path in [`Grants::write`] may not exist yet: then its directory is in [`Grants::make`].
    pub grants: Grants,
    /// The options that cannot work under these closures.
    pub refused: Vec<Refused>,
    /// Whether it makes temporary files: it gets a directory of its own as `$TMPDIR`.
    pub temporary_directory: bool,
    /// Whether it changes the modes, owners, times and extended attributes of files for its guest, in a shared directory.
    pub changes_attributes: bool,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or it is unknown.
    Missing,
    /// A directory.
    Directory,
    /// A file, a device, a socket.
    File,
}

/// What the needs depend on besides the words of the command.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The working directory of the command. Absolute.
    pub directory: &'a Path,
    /// The environment of the command, before `--strict` removes variables.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// The closures of the command. Only they refuse options.
    pub strict: &'a Strict,
    /// The file that a word of the command names, by `$PATH` and symbolic links.
    pub resolve: &'a dyn Fn(&OsStr) -> Option<PathBuf>,
    /// Reads a configuration file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// What a path leads to. Symbolic links are followed.
    pub kind: &'a dyn Fn(&Path) -> Kind,
}

/// The needs of the QEMU in a command; `None` if there is none.
#[must_use]
pub fn of(command: &[OsString], setting: &Setting<'_>) -> Option<Needs> {
    let (emulator, mut arguments) = emulator::find(command, setting.resolve)?;
    // The QEMU's name is among the words after qrap, or qrap finds a QEMU itself.
    if emulator == Emulator::Qrap
        && let Some((_, behind)) = emulator::find(arguments, setting.resolve)
    {
        arguments = behind;
    }
    let (items, _) = configuration::gather(arguments, setting.read);
    let mut collector = Collector::new(setting, &items);
    // QEMU tries KVM without being asked in some distributions, and -accel, -machine and -enable-kvm ask for it.
    collector.write("/dev/kvm");
    let images = Images::of(&items);
    for item in &items {
        if item.parameters.asks_for_help() {
            continue;
        }
        collector.item = Some(item);
        disks::collect(item, &images, &mut collector);
        firmware::collect(item, &mut collector);
        servers::collect(item, &mut collector);
        network::collect(item, &mut collector);
        audio::collect(item, &mut collector);
        shares::collect(item, &mut collector);
        devices::collect(item, &mut collector);
        objects::collect(item, &mut collector);
    }
    display::collect(&mut collector);
    audio::collect_default(&mut collector);
    Some(collector.needs)
}

#[cfg(test)]
mod tests;
