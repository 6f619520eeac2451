//! The operation of an attempt: its destination, packet, socket, name, local port or device.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use qfence_common::{
    AttemptKey, Halves, Hook,
    device::{BLOCK, FORBIDDEN},
    frame::{
        NOT_IP,
        ethernet::{ARP, IPV4, IPV6},
    },
    hook::Subject,
    unix::Name,
    verdict,
};
use serde::{Deserialize, Serialize};

use crate::{
    base::printable::{in_one_word, printable},
    confinement::managers,
    policy::protocol::protocol_name,
    record::resolved_names::write_names,
};

/// The operation that was attempted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Operation {
    /// Reaching a destination; at the hook setsockopt, joining a group.
    Destination {
        /// The protocol: `tcp`, `udp`, …, or its number.
        protocol: String,
        /// The address. A v4-mapped address is shown as IPv4.
        destination: IpAddr,
        /// The port; 0 if the protocol has no ports.
        port: u32,
        /// The names that led there, if the fence has a resolver.
        #[serde(default)]
        names: Vec<Arc<str>>,
    },
    /// Making a socket, or allowing it to broadcast; with the protocol `unix`, connecting or sending to one of a manager.
    Socket {
        /// The type of the socket: `raw`, `dgram`, …, or its number.
        socket: String,
        /// The protocol, as for destinations.
        protocol: String,
    },
    /// Binding a socket to a local address and port.
    Local {
        /// The protocol, as for destinations.
        protocol: String,
        /// The local address. A v4-mapped address is shown as IPv4.
        local: IpAddr,
        /// The local port.
        local_port: u32,
    },
    /// Using a Unix socket by its name.
    Unix {
        /// The name as the process gave it, safe to print. An abstract name begins with `@`. Empty if not known.
        unix: String,
        /// The manager whose socket it is.
        manager: Option<String>,
    },
    /// Opening a device.
    Device {
        /// The usual path of the device, or its numbers.
        device: String,
    },
    /// Sending a frame that is not IP.
    Frame {
        /// Its type: `arp`, or the number of the ethertype, such as `0x88cc`.
        frame: String,
        /// With ARP the address that is asked for.
        target: Option<IpAddr>,
    },
    /// Sending a packet that could not be parsed.
    Packet {
        /// `unknown`.
        protocol: String,
    },
}

impl Operation {
    /// The operation of an attempt key, and of the name that its first event had.
    #[must_use]
    pub fn of(key: &AttemptKey, name: Option<&Name>) -> Self {
        match Hook::from_number(key.hook).map(|hook| hook.row().subject) {
            Some(Subject::Socket) if key.address == Halves::NONE => Self::Socket {
                socket: socket_type_name(key.port),
                protocol: protocol_name(key.protocol),
            },
            Some(Subject::Peer) => Self::Socket {
                socket: socket_type_name(key.port),
                protocol: "unix".to_owned(),
            },
            Some(Subject::Device) => Self::Device {
                device: device_name(key.protocol, key.port, key.address == BLOCK),
            },
            Some(Subject::Local) => Self::Local {
                protocol: protocol_name(key.protocol),
                local: Ipv6Addr::from(key.address.address()).to_canonical(),
                local_port: key.port,
            },
            Some(Subject::Name) => Self::Unix {
                unix: name
                    .map(|name| unix_name(name, key.port))
                    .unwrap_or_default(),
                manager: managers::name(key.protocol).map(str::to_owned),
            },
            Some(Subject::Frame) if key.protocol & NOT_IP != 0 => {
                let target = Ipv6Addr::from(key.address.address()).to_canonical();
                Self::Frame {
                    frame: frame_name(key.protocol & !NOT_IP),
                    target: (key.address != Halves::NONE).then_some(target),
                }
            }
            _ if key.rule == verdict::UNPARSED => Self::Packet {
                protocol: "unknown".to_owned(),
            },
            _ => Self::Destination {
                protocol: protocol_name(key.protocol),
                destination: Ipv6Addr::from(key.address.address()).to_canonical(),
                port: key.port,
                names: Vec::new(),
            },
        }
    }
}

impl Operation {
    /// The destination's address, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Destination { destination, .. } => Some(*destination),
            _ => None,
        }
    }

    /// The names that led to the destination.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        match self {
            Self::Destination { names, .. } => names,
            _ => &[],
        }
    }

    /// The same without names.
    #[must_use]
    pub fn without_names(&self) -> Self {
        let mut same = self.clone();
        if let Self::Destination { names, .. } = &mut same {
            names.clear();
        }
        same
    }

    /// The given address, with the port of the destination.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> SocketAddr {
        let port = match self {
            Self::Destination { port, .. } => u16::try_from(*port).unwrap_or_default(),
            _ => 0,
        };
        SocketAddr::new(address, port)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination {
                protocol,
                destination,
                port,
                names,
            } => {
                let port = u16::try_from(*port).unwrap_or_default();
                write!(f, "{protocol} {}", SocketAddr::new(*destination, port))?;
                write_names(f, names)
            }
            Self::Packet { protocol } => write!(f, "{protocol} packet"),
            Self::Frame { frame, target } => match target {
                Some(target) => write!(f, "{frame} {target}"),
                None => write!(f, "{frame} frame"),
            },
            Self::Socket { socket, protocol } => write!(f, "{protocol} {socket} socket"),
            Self::Local {
                protocol,
                local,
                local_port,
            } => {
                let port = u16::try_from(*local_port).unwrap_or_default();
                write!(f, "{protocol} listener {}", SocketAddr::new(*local, port))
            }
            Self::Unix { unix, manager } => {
                // Blanks in a name could look like the fields after it.
                let unix = match in_one_word(unix) {
                    unknown if unknown.is_empty() => "unknown".to_owned(),
                    unix => unix,
                };
                write!(f, "unix {unix}")?;
                match manager {
                    Some(manager) => write!(f, " ({manager})"),
                    None => Ok(()),
                }
            }
            Self::Device { device } => write!(f, "device {device}"),
        }
    }
}

/// The name of an ethertype.
fn frame_name(ethertype: u32) -> String {
    match ethertype {
        ARP => "arp".to_owned(),
        IPV4 => "ipv4".to_owned(),
        IPV6 => "ipv6".to_owned(),
        other => format!("{other:#06x}"),
    }
}

/// The name of a SOCK_* constant after the underscore.
fn socket_type_name(number: u32) -> String {
    match number {
        1 => "stream".into(),
        2 => "dgram".into(),
        3 => "raw".into(),
        5 => "seqpacket".into(),
        other => other.to_string(),
    }
}

/// The name of a Unix socket, safe to print. Zero bytes in an abstract name are shown as `@`, as in /proc/net/unix.
fn unix_name(name: &Name, length: u32) -> String {
    let bytes: Vec<u8> = name.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let shown: Vec<u8> = bytes
        .into_iter()
        .take(length)
        .map(|byte| if byte == 0 { b'@' } else { byte })
        .collect();
    printable(&shown)
}

fn device_name(major: u32, minor: u32, is_block: bool) -> String {
    if is_block {
        return format!("block {major}:{minor}");
    }
    FORBIDDEN
        .iter()
        .find(|device| (device.major, device.minor) == (major, minor))
        .map_or_else(
            || format!("{major}:{minor}"),
            |device| device.path.to_owned(),
        )
}
