//! Builds frames, from Ethernet up, right and wrong ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, TcpHeader, UdpHeader,
    checksum::Sum16BitWords,
};

/// An address of the data link layer.
pub type Mac = [u8; 6];

/// A frame, from its Ethernet header.
pub type Frame = Vec<u8>;

/// The address that all devices receive.
pub const BROADCAST: Mac = [0xff; 6];

/// The length of the Ethernet header.
const ETHERNET: usize = 14;

/// A frame of an ethertype.
#[must_use]
pub fn ethernet(source: Mac, destination: Mac, kind: u16, payload: &[u8]) -> Frame {
    let header = Ethernet2Header {
        source,
        destination,
        ether_type: EtherType(kind),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// A frame with an IP packet, whose ethertype is that of its version.
#[must_use]
pub fn packet(source: Mac, destination: Mac, packet: &[u8]) -> Frame {
    ethernet(source, destination, kind_of(packet), packet)
}

/// The ethertype of an IP packet.
#[must_use]
pub fn kind_of(packet: &[u8]) -> u16 {
    match packet.first().map(|first| first >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    }
}

/// A frame of LLC: the length where others have the ethertype.
#[must_use]
pub fn llc(source: Mac, destination: Mac, payload: &[u8]) -> Frame {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    ethernet(source, destination, length, payload)
}

/// Puts VLAN tags into a frame: pairs of ethertype and tag, the outer first.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Frame {
    let mut all = frame[..12].to_vec();
    for (kind, tag) in tags {
        all.extend(kind.to_be_bytes());
        all.extend(tag.to_be_bytes());
    }
    all.extend_from_slice(&frame[12..]);
    all
}

/// An ARP packet.
#[must_use]
pub fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend(sender.0);
    packet.extend(sender.1.octets());
    packet.extend(target.0);
    packet.extend(target.1.octets());
    packet
}

/// An IP packet of a protocol.
///
/// # Panics
/// If the addresses are of two families.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            v4(source, destination, protocol, 64, &[], payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            v6(source, destination, protocol, 64, payload)
        }
        _ => unreachable!("a packet of two families"),
    }
}

/// An IPv4 packet with options.
#[must_use]
pub fn v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut header = Ipv4Header {
        protocol: IpNumber(protocol),
        time_to_live: ttl,
        source: source.octets(),
        destination: destination.octets(),
        dont_fragment: false,
        identification: identification(payload),
        ..Ipv4Header::default()
    };
    if let Ok(options) = options.try_into() {
        header.options = options;
    }
    let length = header.header_len() + payload.len();
    header.total_len = u16::try_from(length).unwrap_or(u16::MAX);
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// An IPv6 packet.
#[must_use]
pub fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: u16::try_from(payload.len()).unwrap_or(u16::MAX),
        next_header: IpNumber(next),
        hop_limit: hops,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

/// Cuts an IP packet into fragments, whose first has so many bytes of payload (a multiple of eight).
#[must_use]
pub fn fragments(whole: &[u8], first: usize) -> Vec<Vec<u8>> {
    if kind_of(whole) == 0x86dd {
        return v6_fragments(whole, first);
    }
    let (header, payload) = whole.split_at(20);
    let cut = |from: usize, to: usize| {
        let mut header = header.to_vec();
        let length = u16::try_from(20 + to - from).unwrap_or(u16::MAX);
        header[2..4].copy_from_slice(&length.to_be_bytes());
        let more = if to < payload.len() { 0x2000 } else { 0 };
        let offset = u16::try_from(from / 8).unwrap_or(0) | more;
        header[6..8].copy_from_slice(&offset.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&header[..], &payload[from..to]].concat()
    };
    let first = first.min(payload.len());
    let mut all = vec![cut(0, first)];
    if first < payload.len() {
        all.push(cut(first, payload.len()));
    }
    all
}

fn v6_fragments(whole: &[u8], first: usize) -> Vec<Vec<u8>> {
    let (header, payload) = whole.split_at(40);
    let cut = |from: usize, to: usize| {
        let mut header = header.to_vec();
        let next = std::mem::replace(&mut header[6], 44);
        let length = u16::try_from(8 + to - from).unwrap_or(u16::MAX);
        header[4..6].copy_from_slice(&length.to_be_bytes());
        let offset = u16::try_from(from).unwrap_or(0) | u16::from(to < payload.len());
        let id = u32::from(identification(payload));
        let mut extension = vec![next, 0];
        extension.extend(offset.to_be_bytes());
        extension.extend(id.to_be_bytes());
        [&header[..], &extension, &payload[from..to]].concat()
    };
    let first = first.min(payload.len());
    let mut all = vec![cut(0, first)];
    if first < payload.len() {
        all.push(cut(first, payload.len()));
    }
    all
}

/// An identification that differs between packets: the kernel puts fragments of the same one together.
fn identification(payload: &[u8]) -> u16 {
    payload.chunks(2).fold(0x1d0f, |id, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        id.wrapping_mul(31)
            .wrapping_add(u16::from_be_bytes([pair[0], low]))
    })
}

/// A UDP packet.
#[must_use]
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut header = UdpHeader {
        source_port: from.1,
        destination_port: to.1,
        length,
        checksum: 0,
    };
    let sum = transport_sum(from.0, to.0, 17, &[&header.to_bytes(), payload]);
    header.checksum = if sum == 0 { 0xffff } else { sum };
    ip(
        from.0,
        to.0,
        17,
        &[&header.to_bytes()[..], payload].concat(),
    )
}

/// The flags of a TCP segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// The first of a connection, or its answer.
    pub syn: bool,
    /// An acknowledgement.
    pub ack: bool,
    /// A reset.
    pub rst: bool,
}

/// The flags of a connection's first segment.
pub const SYN: Flags = Flags {
    syn: true,
    ack: false,
    rst: false,
};

/// A TCP segment.
#[must_use]
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: Flags) -> Vec<u8> {
    let mut header = TcpHeader::new(from.1, to.1, 0x0102_0304, 64240);
    header.syn = flags.syn;
    header.ack = flags.ack;
    header.rst = flags.rst;
    if flags.ack {
        header.acknowledgment_number = 0x0506_0708;
    }
    header.checksum = transport_sum(from.0, to.0, 6, &[&header.to_bytes()]);
    ip(from.0, to.0, 6, &header.to_bytes())
}

/// A request for an echo.
#[must_use]
pub fn ping(source: IpAddr, destination: IpAddr, identifier: u16) -> Vec<u8> {
    let mut rest = identifier.to_be_bytes().to_vec();
    rest.extend([0, 1]);
    rest.extend(*b"a ping of a test");
    let kind = if source.is_ipv4() { 8 } else { 128 };
    icmp(source, destination, kind, 0, &rest)
}

/// An ICMP or ICMPv6 packet: type, code, and what follows the checksum.
#[must_use]
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let (protocol, payload) = icmp_payload(source, destination, kind, code, rest);
    ip(source, destination, protocol, &payload)
}

/// An ICMPv6 packet of neighbour discovery, whose hop limit is given.
#[must_use]
pub fn discovery(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hops: u8,
    kind: u8,
    rest: &[u8],
) -> Vec<u8> {
    let (next, payload) = icmp_payload(source.into(), destination.into(), kind, 0, rest);
    v6(source, destination, next, hops, &payload)
}

/// The protocol and payload of an ICMP packet.
#[must_use]
pub fn icmp_payload(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    code: u8,
    rest: &[u8],
) -> (u8, Vec<u8>) {
    let mut payload = vec![kind, code, 0, 0];
    payload.extend_from_slice(rest);
    let (protocol, sum) = if source.is_ipv4() {
        (1, checksum(&[&payload]))
    } else {
        (58, transport_sum(source, destination, 58, &[&payload]))
    };
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    (protocol, payload)
}

/// The checksum of the internet protocols.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    // Only the last part may have an odd number of bytes.
    let sum = parts
        .iter()
        .fold(Sum16BitWords::new(), |sum, part| sum.add_slice(part));
    sum.ones_complement().to_be()
}

/// The checksum of a packet of UDP, TCP or ICMPv6, whose checksum field is zero. It is zero if the field is right.
#[must_use]
pub fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, parts: &[&[u8]]) -> u16 {
    let length = parts.iter().map(|part| part.len()).sum();
    let pseudo = pseudo_header(source, destination, protocol, length);
    let mut all = vec![&pseudo[..]];
    all.extend_from_slice(parts);
    checksum(&all)
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut pseudo = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    // The order of words does not matter to the sum.
    pseudo.extend([0, protocol]);
    pseudo.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    pseudo
}

/// Leaves the checksum of a whole UDP or TCP packet to the receiver of the frame, as a guest with offloads does: the
/// field has the sum of the pseudo-header. Returns where the sum begins, and where from there the field is.
pub(super) fn make_partial(frame: &mut [u8]) -> Option<(usize, usize)> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let packet = frame.get(ETHERNET..)?;
    let (header, protocol, source, destination) = match kind {
        0x0800 if packet.len() >= 20 => {
            let header = usize::from(packet[0] & 15) * 4;
            if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
                return None;
            }
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(octets.into())
            };
            (header, packet[9], address(12)?, address(16)?)
        }
        0x86dd if packet.len() >= 40 => {
            let address = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(octets.into())
            };
            let (mut header, mut next) = (40, packet[6]);
            // Options of eight bytes.
            while matches!(next, 0 | 60) && *packet.get(header + 1)? == 0 {
                next = *packet.get(header)?;
                header += 8;
            }
            (header, next, address(8)?, address(24)?)
        }
        _ => return None,
    };
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return None,
    };
    let start = ETHERNET + header;
    let length = frame.len().checked_sub(start)?;
    let pseudo = pseudo_header(source, destination, protocol, length);
    let field = frame.get_mut(start + offset..start + offset + 2)?;
    field.copy_from_slice(&(!checksum(&[&pseudo])).to_be_bytes());
    Some((start, offset))
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 122, 10));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

    fn addresses() -> [(IpAddr, IpAddr); 2] {
        let v6 = |text: &str| text.parse().unwrap();
        [(A, B), (v6("fd00:122::10"), v6("fd50::1"))]
    }

    #[test]
    fn checksums_are_those_of_another_implementation() {
        for (source, destination) in addresses() {
            let frame = packet(
                [2; 6],
                [4; 6],
                &udp((source, 1000), (destination, 53), b"odd"),
            );
            let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Udp(udp)) = &sliced.transport else {
                panic!("{sliced:?}");
            };
            let header = udp.to_header();
            let expected = match &sliced.net {
                Some(NetSlice::Ipv4(ip)) => header
                    .calc_checksum_ipv4(&ip.header().to_header(), udp.payload())
                    .unwrap(),
                Some(NetSlice::Ipv6(ip)) => header
                    .calc_checksum_ipv6(&ip.header().to_header(), udp.payload())
                    .unwrap(),
                other => panic!("{other:?}"),
            };
            assert_eq!(header.checksum, expected);
        }
    }

    #[test]
    fn the_sum_of_a_right_packet_is_zero() {
        for (source, destination) in addresses() {
            let whole = tcp((source, 1), (destination, 2), SYN);
            let header = if source.is_ipv4() { 20 } else { 40 };
            assert_eq!(
                transport_sum(source, destination, 6, &[&whole[header..]]),
                0
            );
        }
    }

    #[test]
    fn a_partial_checksum_is_completed_to_the_right_one() {
        for (source, destination) in addresses() {
            let whole = packet([2; 6], [4; 6], &tcp((source, 1), (destination, 2), SYN));
            let mut partial = whole.clone();
            let (start, offset) = make_partial(&mut partial).unwrap();
            assert_ne!(partial, whole);
            // As the kernel completes it: the sum from the start, with the field as it is.
            let sum = checksum(&[&partial[start..]]);
            partial[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(partial, whole);
        }
    }

    #[test]
    fn fragments_have_all_of_the_payload() {
        for (source, destination) in addresses() {
            let whole = udp((source, 1), (destination, 2), &[7; 100]);
            let pieces = fragments(&whole, 48);
            let header = if source.is_ipv4() { 20 } else { 48 };
            let payload: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece[header..].to_vec())
                .collect();
            let before = if source.is_ipv4() { 20 } else { 40 };
            assert_eq!(payload, whole[before..]);
            assert!(
                SlicedPacket::from_ip(&pieces[1])
                    .unwrap()
                    .transport
                    .is_none()
            );
        }
    }

    #[test]
    fn tags_come_before_the_ethertype() {
        let frame = ethernet([2; 6], [4; 6], 0x0806, &[1, 2]);
        let tagged = tagged(&frame, &[(0x88a8, 5), (0x8100, 0)]);
        assert_eq!(tagged[12..], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 0, 8, 6, 1, 2]);
    }
}
