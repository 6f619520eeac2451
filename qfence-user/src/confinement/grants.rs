//! What a command keeps under its closures.

use std::{collections::BTreeSet, path::PathBuf};

use qfence_common::Protocol;

use super::{AbstractNames, UnixName};

/// What a command keeps under its closures. Every path is absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Files, and directories with all that is below, to read and to execute. Devices too.
    pub read: BTreeSet<PathBuf>,
    /// Files, and directories with all that is below, to read, execute and change. Devices too.
    pub write: BTreeSet<PathBuf>,
    /// Directories in which the command makes sockets and files, and removes them.
    pub make: BTreeSet<PathBuf>,
    /// Unix sockets made outside the fence to which the command may connect.
    pub connect: BTreeSet<UnixName>,
    /// Local ports that the command may bind.
    pub listen: BTreeSet<Listener>,
    /// Environment variables that the command keeps, besides the usual ones.
    pub environment: BTreeSet<&'static str>,
    /// Whether the command keeps the System V shared memory of its user, as a display uses it.
    pub shared_memory: bool,
}

impl Grants {
    /// How abstract names of Unix sockets are closed. A Landlock domain cannot let one name through.
    #[must_use]
    pub fn abstract_names(&self) -> AbstractNames {
        let is_abstract = |name: &UnixName| matches!(name, UnixName::Abstract(_));
        match self.connect.iter().any(is_abstract) {
            true => AbstractNames::ByName,
            false => AbstractNames::Scoped,
        }
    }
}

/// A local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The first port; not 0, which every command may bind.
    pub first: u16,
    /// The last port.
    pub last: u16,
}
