//! An option that cannot work under a closure.

use std::fmt;

use crate::confinement::{Closure, Strict};

/// An option that cannot work under the closures of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The argument as the user wrote it, safe to print.
    pub argument: String,
    /// The closures that forbid it, among those of the command.
    pub closures: Vec<Closure>,
    /// The closures of the command that work with this option: what `--strict=LIST` can ask for. Empty if none does.
    pub remaining: Strict,
    /// Why.
    pub reason: &'static Reason,
}

/// Why an option cannot work.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// The closures that forbid it.
    pub closures: &'static [Closure],
    /// The cause: a clause.
    pub why: &'static str,
    /// What to give instead: a clause.
    pub instead: &'static str,
}

impl Refused {
    /// The refusal of an argument; `None` if the closures of the command do not forbid it.
    #[must_use]
    pub fn new(argument: &str, reason: &'static Reason, strict: &Strict) -> Option<Self> {
        let forbids = |closure: &Closure| strict.has(*closure);
        let closures: Vec<_> = reason.closures.iter().copied().filter(forbids).collect();
        (!closures.is_empty()).then(|| Self {
            argument: argument.to_owned(),
            remaining: strict.without(&closures),
            closures,
            reason,
        })
    }
}

impl fmt::Display for Refused {
    /// The error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.closures.iter().map(|closure| closure.name()).collect();
        let (closures, verb) = match names.len() {
            1 => ("closure", "forbids"),
            _ => ("closures", "forbid"),
        };
        write!(
            f,
            "{} does not work under --strict: {}, which the {closures} {} {verb}; {}, or ",
            self.argument,
            self.reason.why,
            names.join(" and "),
            self.reason.instead,
        )?;
        if self.remaining.is_empty() {
            f.write_str("remove --strict")
        } else {
            write!(f, "give --strict={}", self.remaining)
        }
    }
}

/// A terminal of its own.
pub const PTY: Reason = Reason {
    closures: &[Closure::Files, Closure::Devices],
    why: "it opens a new terminal in /dev/pts, where all terminals of the user are",
    instead: "use a Unix socket (unix:PATH,server=on,wait=off)",
};
/// `io_uring`.
pub const IO_URING: Reason = Reason {
    closures: &[Closure::Syscalls],
    why: "it needs io_uring",
    instead: "use aio=threads or aio=native",
};
/// QEMU's own passt.
pub const PASST: Reason = Reason {
    closures: &[Closure::Files, Closure::Syscalls],
    why: "passt builds a sandbox of its own from namespaces and mounts",
    instead: "use -netdev user",
};
/// The file server of a user network.
pub const SMB: Reason = Reason {
    closures: &[Closure::Files],
    why: "it starts smbd, which uses directories of its own and changes users",
    instead: "use -virtfs to share a directory",
};
/// A guest that a command restores.
pub const INCOMING_COMMAND: Reason = Reason {
    closures: &[Closure::Files],
    why: "it starts a shell command, which reads files that qfence does not know",
    instead: "use -incoming file:PATH (QEMU 8.2) or -incoming unix:PATH",
};
/// D-Bus.
pub const BUS: Reason = Reason {
    closures: &[Closure::Sockets],
    why: "it connects to D-Bus, by which a process can leave its fence",
    instead: "remove it",
};
/// A SPICE viewer that QEMU starts.
pub const SPICE_APP: Reason = Reason {
    closures: &[Closure::Sockets, Closure::Files],
    why: "it starts a viewer, which needs the session of the user",
    instead: "use -spice with a viewer outside the fence",
};
/// Families of sockets.
pub const FAMILY: Reason = Reason {
    closures: &[Closure::Syscalls],
    why: "it needs a socket of another family than Unix and the internet",
    instead: "remove it",
};
/// Keys of the kernel.
pub const KEYS: Reason = Reason {
    closures: &[Closure::Syscalls],
    why: "it needs the keys of the kernel (keyctl)",
    instead: "use -object secret,file=PATH",
};
/// USB devices of the host: libusb fails without uevents (`linux_start_event_monitor`; seen with QEMU 7.2).
pub const UEVENTS: Reason = Reason {
    closures: &[Closure::Syscalls],
    why: "libusb needs a socket for the events of the kernel (NETLINK_KOBJECT_UEVENT)",
    instead: "remove it",
};
