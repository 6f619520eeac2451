//! The network devices of this network namespace, by netlink: what each is, and the host's addresses on it.

mod change;
mod follow;
pub mod pairs;
pub mod tap;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use change::{delete, move_into, set_down, set_up};
pub use follow::FollowedDevices;
use futures_util::TryStreamExt as _;
use netlink_packet_core::Nla as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use thiserror::Error;

use crate::base::mac::Mac;

/// In the data of a tun device: its type (`IFLA_TUN_TYPE` of linux/if_link.h).
const TUN_TYPE: u16 = 3;
/// The type for Ethernet frames (`IFF_TAP` of linux/if_tun.h).
const TAP: u8 = 2;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tap device: a process has the other end.
    Tap,
    /// A tun device: packets without Ethernet headers.
    Tun,
    /// A macvtap device.
    Macvtap,
    /// An end of a pair.
    Veth,
    /// A bridge.
    Bridge,
    /// The loopback device.
    Loopback,
    /// A network card, or another device without a kind.
    Card,
    /// Another virtual device, by the kernel's name of its kind.
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap => f.write_str("a tap device"),
            Self::Tun => f.write_str("a tun device"),
            Self::Macvtap => f.write_str("a macvtap device"),
            Self::Veth => f.write_str("a veth device"),
            Self::Bridge => f.write_str("a bridge"),
            Self::Loopback => f.write_str("the loopback device"),
            Self::Card => f.write_str("a network card"),
            Self::Other(kind) => write!(f, "a device of the kind {kind}"),
        }
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index. The kernel does not reuse it soon.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The index of the bridge, or other device, that it is a port of.
    pub master: Option<u32>,
    /// Its own MAC address: with macvtap that of the guest.
    pub mac: Option<Mac>,
    /// Whether it was set up.
    pub is_up: bool,
}

/// The devices at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    by_index: BTreeMap<u32, Device>,
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// Why the devices cannot be read or followed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// A netlink socket cannot be opened.
    #[error("cannot open a netlink socket for network devices")]
    Open(#[source] std::io::Error),
    /// The kernel does not list them.
    #[error("cannot read the network devices over netlink")]
    Read(#[source] Box<rtnetlink::Error>),
    /// The kernel refuses to change one.
    #[error("the kernel refuses the change")]
    Change(#[source] Box<rtnetlink::Error>),
    /// Announcements cannot be received.
    #[error("the kernel's announcements of network devices have ended")]
    Ended(#[source] super::addresses::AddressError),
}

impl Devices {
    /// Reads them. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel does not list them.
    pub async fn read() -> Result<Self, DeviceError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
        let connection = tokio::spawn(connection);
        let found = Self::read_by(&handle).await;
        connection.abort();
        found
    }

    async fn read_by(handle: &rtnetlink::Handle) -> Result<Self, DeviceError> {
        let failed = |error| DeviceError::Read(Box::new(error));
        let mut devices = Self::default();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(failed)? {
            devices.add(&link);
        }
        let mut addresses = handle.address().get().execute();
        while let Some(address) = addresses.try_next().await.map_err(failed)? {
            devices.add_address(&address);
        }
        Ok(devices)
    }

    /// The device of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Device> {
        self.by_index.values().find(|device| device.name == name)
    }

    /// The device with this index.
    #[must_use]
    pub fn with_index(&self, index: u32) -> Option<&Device> {
        self.by_index.get(&index)
    }

    /// The addresses of the host in the network of the guest behind a device: those of the device itself, and of the
    /// bridge that it is a port of.
    #[must_use]
    pub fn gateways(&self, device: &Device) -> BTreeSet<IpAddr> {
        let own = [Some(device.index), device.master];
        let of = |index| self.addresses.get(&index).into_iter().flatten();
        own.into_iter().flatten().flat_map(of).copied().collect()
    }

    /// The addresses of the host in the networks of the guests behind these devices, as far as they exist.
    #[must_use]
    pub fn gateways_of(&self, names: &[String]) -> BTreeSet<IpAddr> {
        let found = names.iter().filter_map(|name| self.named(name));
        found.flat_map(|device| self.gateways(device)).collect()
    }

    fn add(&mut self, link: &LinkMessage) {
        let mut device = Device {
            index: link.header.index,
            name: String::new(),
            kind: kind_of(link),
            master: None,
            mac: None,
            is_up: link.header.flags.contains(LinkFlags::Up),
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name.clone_from(name),
                LinkAttribute::Controller(0) => {}
                LinkAttribute::Controller(master) => device.master = Some(*master),
                LinkAttribute::Address(bytes) => {
                    device.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
                }
                _ => {}
            }
        }
        self.by_index.insert(device.index, device);
    }

    fn add_address(&mut self, message: &AddressMessage) {
        // With a peer (`ip address add A peer B`) the local address is an attribute of its own.
        let local = message.attributes.iter().find_map(|found| match found {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|found| match found {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let is_any = |address: &IpAddr| {
            *address == Ipv4Addr::UNSPECIFIED || *address == Ipv6Addr::UNSPECIFIED
        };
        if let Some(address) = local.or(address).filter(|address| !is_any(address)) {
            let of_device = self.addresses.entry(message.header.index).or_default();
            of_device.insert(address);
        }
    }
}

fn kind_of(link: &LinkMessage) -> Kind {
    if link.header.flags.contains(LinkFlags::Loopback) {
        return Kind::Loopback;
    }
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    let infos = infos.map_or(&[][..], |infos| &infos[..]);
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    let is_tap = infos.iter().any(|info| match info {
        LinkInfo::Data(InfoData::Tun(data)) => data.iter().any(is_tap),
        _ => false,
    });
    match kind {
        None => Kind::Card,
        Some(InfoKind::Tun) if is_tap => Kind::Tap,
        Some(InfoKind::Tun) => Kind::Tun,
        Some(InfoKind::MacVtap) => Kind::Macvtap,
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(other) => Kind::Other(other.to_string()),
    }
}

fn is_tap(data: &InfoTun) -> bool {
    let mut value = vec![0; data.value_len()];
    data.emit_value(&mut value);
    data.kind() == TUN_TYPE && value == [TAP]
}

#[cfg(test)]
mod tests;
