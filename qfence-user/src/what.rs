//! What a refusal was of: a destination, a packet, a socket or a device.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use qfence_common::{Event, Hook, device::FORBIDDEN, verdict};
use serde::Serialize;

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum What {
    /// To reach a destination.
    Destination {
        /// The protocol: `tcp`, `udp`, …, or its number.
        protocol: String,
        /// The address; a v4-mapped one is shown as IPv4.
        destination: IpAddr,
        /// The port; 0 for protocols without.
        port: u32,
    },
    /// To send a packet that could not be understood.
    Packet {
        /// `unknown`.
        protocol: &'static str,
    },
    /// To make a socket, or to let one broadcast.
    Socket {
        /// Its type: `raw`, `dgram`, …, or its number.
        socket: String,
        /// As above.
        protocol: String,
    },
    /// To open a device.
    Device {
        /// Its usual path, or its numbers.
        device: String,
    },
}

impl What {
    /// What an event is about.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match Hook::from_number(event.hook) {
            Some(Hook::SockCreate | Hook::Setsockopt) => Self::Socket {
                socket: socket_type_name(event.port),
                protocol: protocol_name(event.protocol),
            },
            Some(Hook::Device) => Self::Device {
                device: device_name(event.protocol, event.port),
            },
            _ if event.rule == verdict::UNPARSED => Self::Packet {
                protocol: "unknown",
            },
            _ => Self::Destination {
                protocol: protocol_name(event.protocol),
                destination: Ipv6Addr::from(event.address).to_canonical(),
                port: event.port,
            },
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination {
                protocol,
                destination,
                port,
            } => {
                let port = u16::try_from(*port).unwrap_or_default();
                write!(f, "{protocol} {}", SocketAddr::new(*destination, port))
            }
            Self::Packet { protocol } => write!(f, "{protocol} packet"),
            Self::Socket { socket, protocol } => write!(f, "{protocol} {socket} socket"),
            Self::Device { device } => write!(f, "device {device}"),
        }
    }
}

/// SOCK_* by what follows the underscore.
fn socket_type_name(number: u32) -> String {
    match number {
        1 => "stream".into(),
        2 => "dgram".into(),
        3 => "raw".into(),
        other => other.to_string(),
    }
}

fn device_name(major: u32, minor: u32) -> String {
    FORBIDDEN
        .iter()
        .find(|device| (device.major, device.minor) == (major, minor))
        .map_or_else(
            || format!("{major}:{minor}"),
            |device| device.path.to_owned(),
        )
}

/// IPPROTO_* by the names of /etc/protocols, as far as sockets have them.
pub(crate) fn protocol_name(number: u32) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        33 => "dccp".into(),
        58 => "ipv6-icmp".into(),
        115 => "l2tp".into(),
        132 => "sctp".into(),
        136 => "udplite".into(),
        262 => "mptcp".into(),
        other => other.to_string(),
    }
}
