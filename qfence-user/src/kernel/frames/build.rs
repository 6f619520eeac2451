//! Builds frames, and reads answers.

use std::net::IpAddr;

use etherparse::{EtherType, IpFragOffset, IpNumber, PacketBuilder, TcpHeader};

/// The guest's MAC address.
pub(super) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// The host's MAC address in the guest's network.
pub(super) const HOST_MAC: [u8; 6] = [0xfe, 0x54, 0, 0x12, 0x34, 0x56];

/// The guest's addresses.
pub(super) const GUEST: &str = "192.168.122.50";
pub(super) const GUEST_V6: &str = "fd00:122::50";

/// The lengths of headers.
pub(super) const ETHERNET: usize = 14;

/// The flags of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    Syn,
    Ack,
    SynAck,
    Rst,
}

/// The addresses of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    from: IpAddr,
    to: IpAddr,
}

/// From the guest to an address.
pub(super) fn to(address: &str) -> Between {
    let to: IpAddr = address.parse().unwrap();
    let from = if to.is_ipv4() { GUEST } else { GUEST_V6 };
    between(from, address)
}

/// From one address to another one of its family.
pub(super) fn between(from: &str, to: &str) -> Between {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    Between { from, to }
}

impl Between {
    fn ip(self) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        self.hops(64)
    }

    fn hops(self, hops: u8) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        let step = PacketBuilder::ethernet2(GUEST_MAC, HOST_MAC);
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => step.ipv4(from.octets(), to.octets(), hops),
            (IpAddr::V6(from), IpAddr::V6(to)) => step.ipv6(from.octets(), to.octets(), hops),
            other => panic!("{other:?} are of two families"),
        }
    }

    /// A datagram.
    pub(super) fn udp(self, from: u16, to: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let datagram = self.ip().udp(from, to);
        datagram.write(&mut frame, b"question").unwrap();
        frame
    }

    /// A segment from sequence number 1000, which acknowledges 7000 if it has ACK.
    pub(super) fn tcp(self, from: u16, to: u16, flags: Flags, data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(from, to, 1000, 64240);
        header.syn = matches!(flags, Flags::Syn | Flags::SynAck);
        header.ack = matches!(flags, Flags::Ack | Flags::SynAck);
        header.rst = flags == Flags::Rst;
        header.acknowledgment_number = if header.ack { 7000 } else { 0 };
        let mut frame = Vec::new();
        self.ip()
            .tcp_header(header)
            .write(&mut frame, data)
            .unwrap();
        frame
    }

    /// An ICMP message of a type and a code, with a right checksum.
    pub(super) fn icmp(self, hops: u8, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
        let step = self.hops(hops);
        let mut frame = Vec::new();
        let head: [u8; 4] = body[..4].try_into().unwrap();
        if self.to.is_ipv4() {
            let message = step.icmpv4_raw(kind, code, head);
            message.write(&mut frame, &body[4..]).unwrap();
        } else {
            let message = step.icmpv6_raw(kind, code, head);
            message.write(&mut frame, &body[4..]).unwrap();
        }
        frame
    }

    /// Any protocol and payload.
    pub(super) fn any(self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let packet = self.ip();
        packet
            .write(&mut frame, IpNumber(protocol), payload)
            .unwrap();
        frame
    }
}

/// Makes an IPv4 packet a fragment: at an offset in units of 8 bytes, and with more to come or not.
pub(super) fn fragment(mut frame: Vec<u8>, offset: u16, has_more: bool) -> Vec<u8> {
    let offset = IpFragOffset::try_new(offset).unwrap().value();
    let more = if has_more { 0x2000 } else { 0 };
    frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&(offset | more).to_be_bytes());
    frame
}

/// Puts bytes between the IPv6 header of a frame and its payload: an extension header with this number, whose first
/// byte is set to the number of what follows.
pub(super) fn extended(frame: &[u8], number: u8, extension: &[u8]) -> Vec<u8> {
    let (head, payload) = frame.split_at(ETHERNET + 40);
    let mut extended = head.to_vec();
    extended.extend(extension);
    extended[ETHERNET + 40] = head[ETHERNET + 6];
    extended[ETHERNET + 6] = number;
    extended.extend(payload);
    let length = u16::try_from(extended.len() - ETHERNET - 40).unwrap();
    extended[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
    extended
}

/// The frame with other MAC addresses.
pub(super) fn with_macs(mut frame: Vec<u8>, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

/// A frame of any ethertype.
pub(super) fn ethernet(kind: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut frame = [HOST_MAC, GUEST_MAC].concat();
    frame.extend(kind.0.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP message.
pub(super) fn arp(operation: u8, sender_mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    message.extend(sender_mac);
    message.extend(sender);
    message.extend([0; 6]);
    message.extend(target);
    with_macs(ethernet(EtherType::ARP, &message), [0xff; 6], GUEST_MAC)
}
