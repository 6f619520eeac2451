//! Side doors: networks of a guest that do not use internet sockets of QEMU. The fence does not see them.
//!
//! The types are those of qapi/net.json and of QEMU's devices, up to QEMU 10.1. An unknown type is treated as a side
//! door.

use std::{borrow::Cow, fmt, io, path::Path};

use super::{
    chardev::{self, Peer},
    configuration::Item,
    parameters::{InvalidValue, Parameters},
    readconfig::InvalidLine,
    taps::MAKE_IN_BRIDGE,
};

pub(super) const TO_KERNEL: &str =
    "the guest's frames enter the host's kernel, which can route them anywhere";
const TO_HARDWARE: &str =
    "the guest's frames enter a network device, and can go anywhere from there";
const TO_SWITCH: &str = "the guest's frames enter a switch on this host";
const TO_PROCESS: &str = "the guest's frames go to another process, by a Unix socket, a descriptor \
     or shared memory";
const TO_VSOCK: &str = "the guest reaches services of this host by vsock";
const TO_CALL: &str = "the guest reaches another process of this host without an internet socket";
const UNKNOWN_DEVICE: &str = "qfence cannot determine whether this is a network card";
const UNKNOWN: &str = "qfence cannot determine the guest's network";

const USE_OTHER: &str = "use -netdev user, or passt started in the same fence, or give \
     --allow-unfenced-net";
/// The argument does not show where the peer runs.
const FENCE_PEER: &str = "if this is a passt in the same fence, its connections are fenced, but \
     qfence cannot see that; then give --allow-unfenced-net";
const LEAVE_OUT: &str = "remove it, or give --allow-unfenced-net";
const REWRITE: &str = "write it so that qfence can read it, or give --allow-unfenced-net";

/// A network that the fence does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    argument: String,
    why: Cow<'static, str>,
    instead: &'static str,
}

impl Door {
    pub(super) fn new(argument: impl Into<String>, (why, instead): Reason) -> Self {
        Self {
            argument: argument.into(),
            why,
            instead,
        }
    }

    /// Invalid JSON.
    pub(super) fn unreadable_json(argument: String, error: &InvalidValue) -> Self {
        let why = format!("qfence cannot read this JSON ({error})");
        Self::new(argument, (why.into(), REWRITE))
    }

    /// A configuration file that cannot be read, or not twice.
    pub(super) fn unreadable_file(argument: impl Into<String>, error: &io::Error) -> Self {
        let why = format!("qfence cannot read this file ({error})");
        let instead = "give a file that both qfence and QEMU can read, or --allow-unfenced-net";
        Self::new(argument, (why.into(), instead))
    }

    /// A line of a configuration file that cannot be parsed.
    pub(super) fn unreadable_line(argument: impl Into<String>, line: InvalidLine) -> Self {
        Self::new(argument, (line.to_string().into(), REWRITE))
    }

    /// passt's wrapper, which connects QEMU to a passt that is already running.
    pub(super) fn qrap() -> Self {
        Self::new("qrap", (TO_PROCESS.into(), FENCE_PEER))
    }

    /// A `guestfwd` that leads to another process.
    pub(super) fn guestfwd(argument: impl Into<String>) -> Self {
        Self::new(argument, (TO_CALL.into(), LEAVE_OUT))
    }

    /// The error if the side door is refused.
    #[must_use]
    pub fn refusal(&self) -> impl fmt::Display {
        format!(
            "the fence does not cover {}: {}; {}",
            self.argument, self.why, self.instead
        )
    }

    /// The warning if the side door is allowed.
    #[must_use]
    pub fn warning(&self) -> impl fmt::Display {
        format!("{} is not fenced: {}", self.argument, self.why)
    }
}

/// The reason, and what to do.
pub(super) type Reason = (Cow<'static, str>, &'static str);

/// Checks one object of QEMU's configuration.
pub fn of(item: &Item, items: &[Item], read: &dyn Fn(&Path) -> io::Result<String>) -> Option<Door> {
    let parameters = &item.parameters;
    if parameters.asks_for_help() {
        return None;
    }
    let reason = match item.group.as_str() {
        "netdev" | "nic" | "net" => network(parameters),
        "device" => device(parameters, read),
        "object" => filter(parameters, items),
        _ => None,
    };
    reason.map(|reason| Door::new(&item.argument, reason))
}

fn network(parameters: &Parameters) -> Option<Reason> {
    let has = |key: &str| parameters.get(key).is_some();
    let is_internet = |address: &str| {
        parameters
            .get(&format!("{address}.type"))
            .is_none_or(|kind| kind == "inet")
    };
    // Without a type, -nic means user. The other options are then invalid.
    let (why, instead) = match parameters.get("type")? {
        // passt is a child of QEMU, and makes its sockets in the fence.
        // Whether a tap is one is found in `taps`.
        "user" | "passt" | "l2tpv3" | "none" | "nic" | "hubport" | "dump" | "help" | "?"
        | "tap" => {
            return None;
        }
        "socket" if !has("fd") => return None,
        "stream" if has("addr.type") && is_internet("addr") => return None,
        "dgram" if is_internet("local") && is_internet("remote") => return None,
        "socket" | "stream" | "dgram" | "vhost-user" => (TO_PROCESS, FENCE_PEER),
        "bridge" => (TO_KERNEL, MAKE_IN_BRIDGE),
        "vde" => (TO_SWITCH, USE_OTHER),
        "netmap" | "af-xdp" | "vhost-vdpa" | "vmnet-host" | "vmnet-shared" | "vmnet-bridged" => {
            (TO_HARDWARE, USE_OTHER)
        }
        _ => ("qfence does not know this type of network", USE_OTHER),
    };
    Some((why.into(), instead))
}

fn device(parameters: &Parameters, read: &dyn Fn(&Path) -> io::Result<String>) -> Option<Reason> {
    let driver = parameters.get("driver")?;
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| driver.starts_with(prefix));
    let (why, instead) = if begins(&["vhost-vsock", "vhost-user-vsock"]) {
        (TO_VSOCK, LEAVE_OUT)
    } else if begins(&["vfio-pci"]) {
        (passed_through(parameters, read)?, USE_OTHER)
    } else if begins(&[
        // Generic devices, whose type is a number or is chosen by the other process.
        "vhost-user-device",
        "vhost-user-test-device",
        "vhost-vdpa-device",
        "vfio-user-pci",
        "x-pci-proxy-dev",
    ]) {
        (UNKNOWN_DEVICE, USE_OTHER)
    } else {
        return None;
    };
    Some((why.into(), instead))
}

/// Checks whether a device that is passed through to the guest is a network card.
fn passed_through(
    parameters: &Parameters,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Option<&'static str> {
    let directory = match (parameters.get("sysfsdev"), parameters.get("host")) {
        (Some(directory), _) => directory.to_owned(),
        (None, Some(address)) => {
            let domain = if address.matches(':').count() < 2 {
                "0000:"
            } else {
                ""
            };
            format!("/sys/bus/pci/devices/{domain}{address}")
        }
        // A descriptor.
        (None, None) => return Some(UNKNOWN_DEVICE),
    };
    match read(&Path::new(&directory).join("class")) {
        // The PCI class of network controllers.
        Ok(class) => class.starts_with("0x02").then_some(TO_HARDWARE),
        // The device does not exist, or is a mediated device; network cards are not mediated.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(UNKNOWN_DEVICE),
    }
}

/// Checks filters that send frames to a character device, or receive them from one.
fn filter(parameters: &Parameters, items: &[Item]) -> Option<Reason> {
    let ends: &[&str] = match parameters.get("qom-type")? {
        "filter-mirror" | "filter-redirector" => &["indev", "outdev"],
        "colo-compare" => &["primary_in", "secondary_in", "outdev", "notify_dev"],
        _ => return None,
    };
    let mut given = ends.iter().filter_map(|end| parameters.get(end));
    given.find_map(|id| match chardev::by_id(items, id) {
        Some(Peer::Internet { .. } | Peer::Caller | Peer::Nobody) => None,
        Some(Peer::Process) => Some((TO_PROCESS.into(), LEAVE_OUT)),
        None => Some((UNKNOWN.into(), LEAVE_OUT)),
    })
}
