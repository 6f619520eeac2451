//! A row of the matrix: frames, what shows that they arrive where there is no fence, and what a fence makes of them.

use std::net::IpAddr;

use crate::{
    probe::frame::{
        answer::Answer,
        wire::{self, Frame, Mac},
    },
    verify::devices::scene::{GATEWAY_MAC, GUEST_LOCAL, GUEST_MAC, GUEST_V4, GUEST_V6, Kind, Link},
};

/// What shows that the frames arrive, without a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// The host's IP stack hands a packet to a protocol.
    Delivered,
    /// The host answers.
    Answered(Answer),
    /// A packet socket of the host receives a frame that is no IP.
    Others,
    /// The internet receives a packet.
    Internet,
    /// The neighbour in the bridge receives a frame.
    Neighbour,
    /// The host's device receives the frame, and nobody else.
    Sent,
}

/// What the guest gets for a frame that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A reset.
    Reset,
    /// ICMP: administratively prohibited.
    Prohibited,
    /// Nothing at all.
    Nothing,
    /// A refusal or nothing.
    Either,
}

/// What a fence makes of the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// Nothing arrives anywhere.
    Refused(Said),
    /// Nothing arrives at the host; the bridge may have it.
    NotForTheHost,
    /// The host may have it, and does not answer.
    Unanswered,
    /// As without a fence.
    Through,
}

/// The layer without which the frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The program at the device.
    First,
    /// The program at LOCAL_IN.
    Second,
    /// Either holds them.
    Both,
    /// Each: the second knows them only by the tag of the first.
    Together,
}

/// Who sends the frames.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// A port that nobody has used before.
    pub port: u16,
}

/// Makes the frames of a row.
pub type Frames = Box<dyn Fn(&Sender) -> Vec<Frame> + Send>;

/// Frames, and what is to come of them.
pub struct Row {
    /// What they are, in words.
    pub name: String,
    /// What shows that they arrive, without a fence.
    pub open: Open,
    /// What a fence makes of them.
    pub fenced: Fenced,
    /// The layer without which they arrive.
    pub layer: Layer,
    /// Makes them.
    pub frames: Frames,
    /// A parameter of the host's network, such as `ipv4/ip_forward`, with its value while the frames are sent, and after.
    pub parameter: Option<(&'static str, &'static str, &'static str)>,
    /// An address that the host gets just before.
    pub address: Option<&'static str>,
    /// Nothing but the tag in `tc_index` shows the second layer whose they are. A table of nftables does not see it.
    pub is_by_tag_alone: bool,
    only: Option<Link>,
}

/// A row that both layers hold.
pub fn row(
    name: impl Into<String>,
    open: Open,
    fenced: Fenced,
    frames: impl Fn(&Sender) -> Vec<Frame> + Send + 'static,
) -> Row {
    Row {
        name: name.into(),
        open,
        fenced,
        layer: Layer::Both,
        frames: Box::new(frames),
        parameter: None,
        address: None,
        is_by_tag_alone: false,
        only: None,
    }
}

impl Row {
    /// Tries it only on a device that is connected in this way.
    #[must_use]
    pub fn only(mut self, link: Link) -> Self {
        self.only = Some(link);
        self
    }

    /// Only one layer holds it.
    #[must_use]
    pub fn held_by(mut self, layer: Layer) -> Self {
        self.layer = layer;
        self
    }

    /// Sets a parameter of the host's network to a value while its frames are sent, and then to another.
    #[must_use]
    pub fn with(
        mut self,
        parameter: &'static str,
        value: &'static str,
        after: &'static str,
    ) -> Self {
        self.parameter = Some((parameter, value, after));
        self
    }

    /// Nothing but the tag in `tc_index` shows the second layer whose it is.
    #[must_use]
    pub fn by_tag_alone(mut self) -> Self {
        self.is_by_tag_alone = true;
        self
    }

    /// Gives the host an address just before.
    #[must_use]
    pub fn after_address(mut self, address: &'static str) -> Self {
        self.address = Some(address);
        self
    }

    /// Whether it is tried in a kind of scene.
    #[must_use]
    pub fn is_for(&self, kind: Kind) -> bool {
        self.only.is_none_or(|link| link == kind.link)
    }
}

impl Sender {
    /// The guest's address for a destination.
    #[must_use]
    pub fn source(&self, destination: IpAddr) -> IpAddr {
        match destination {
            IpAddr::V4(_) => GUEST_V4,
            IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast() => GUEST_LOCAL,
            IpAddr::V6(_) => GUEST_V6,
        }
    }

    /// A datagram.
    #[must_use]
    pub fn udp(&self, destination: IpAddr, port: u16) -> Vec<u8> {
        let from = (self.source(destination), self.port);
        wire::udp(from, (destination, port), b"a datagram of the guest")
    }

    /// The first segment of a connection.
    #[must_use]
    pub fn syn(&self, destination: IpAddr, port: u16) -> Vec<u8> {
        let from = (self.source(destination), self.port);
        wire::tcp(from, (destination, port), wire::SYN)
    }

    /// A ping.
    #[must_use]
    pub fn ping(&self, destination: IpAddr) -> Vec<u8> {
        wire::ping(self.source(destination), destination, self.port)
    }
}

/// A packet in a frame from the guest to the host's device.
#[must_use]
pub fn to_host(packet: &[u8]) -> Vec<Frame> {
    vec![to(GATEWAY_MAC, packet)]
}

/// A packet in a frame from the guest.
#[must_use]
pub fn to(mac: Mac, packet: &[u8]) -> Frame {
    wire::packet(GUEST_MAC, mac, packet)
}

/// The MAC address of a group.
#[must_use]
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// An address of a table.
#[must_use]
pub fn address(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| unreachable!("{text} is no address"))
}
