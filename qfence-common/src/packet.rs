//! Reads an IP packet: where it comes from, where it goes, and whether it opens something.

use crate::{Address, Protocol, address::from_v4};

/// A packet's bytes, from its IP header on.
pub trait Bytes {
    /// `N` bytes at `offset`; `None` if the packet does not have them.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// How many extension headers an IPv6 packet may have before its payload. Linux itself sends at most
/// five (hop-by-hop, destination, routing, fragment, destination).
pub const MAX_EXTENSIONS: usize = 8;

/// What of a packet a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes: with source routing, the next hop.
    pub destination: Address,
    /// What the IP header carries, IPv6 extension headers left out.
    pub protocol: Protocol,
    /// The ports, for protocols that have them; 0 otherwise, and in fragments after the first.
    pub source_port: u16,
    /// As above.
    pub destination_port: u16,
    /// Whether it is a TCP segment other than a SYN without ACK: it opens nothing.
    pub continues_tcp: bool,
}

impl Packet {
    /// One of which nothing is known.
    pub const UNKNOWN: Self = Self {
        source: [0; 16],
        destination: [0; 16],
        protocol: Protocol::ANY,
        source_port: 0,
        destination_port: 0,
        continues_tcp: false,
    };
}

// The protocol numbers that have a say here (IANA's list, IPPROTO_*).
const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// Reads a packet into `packet`, which is to be [`Packet::UNKNOWN`]; `None` if it is none that can be understood
/// whole.
///
/// It is written in place, for copies of it would not fit on a program's stack.
#[inline(always)]
#[must_use]
pub fn parse(bytes: &impl Bytes, packet: &mut Packet) -> Option<()> {
    // As much as either has: each read is a call of the kernel.
    let header: [u8; 20] = bytes.read(0)?;
    match header[0] >> 4 {
        4 => parse_v4(bytes, header, packet),
        6 => parse_v6(bytes, packet),
        _ => None,
    }
}

#[inline(always)]
fn parse_v4(bytes: &impl Bytes, header: [u8; 20], packet: &mut Packet) -> Option<()> {
    let [first, _, _, _, _, _, frag_high, frag_low, _, protocol, ..] = header;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    let length = u32::from(first & 0x0f) * 4;
    if length < 20 {
        return None;
    }
    packet.source = from_v4([s0, s1, s2, s3]);
    packet.destination = from_v4([d0, d1, d2, d3]);
    packet.protocol = Protocol(u32::from(protocol));
    let fragment_offset = u16::from_be_bytes([frag_high, frag_low]) & 0x1fff;
    if fragment_offset != 0 {
        return Some(());
    }
    parse_payload(bytes, packet, protocol, length)
}

#[inline(always)]
fn parse_v6(bytes: &impl Bytes, packet: &mut Packet) -> Option<()> {
    let header: [u8; 40] = bytes.read(0)?;
    let [_, _, _, _, _, _, next_header, ..] = header;
    packet.source.copy_from_slice(&header[8..24]);
    packet.destination.copy_from_slice(&header[24..40]);
    let mut next = next_header;
    let mut offset = 40;
    // The last round is for what follows the last extension.
    for _ in 0..=MAX_EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let [after, length] = bytes.read(offset)?;
                next = after;
                (u32::from(length) + 1) * 8
            }
            AUTHENTICATION => {
                let [after, length] = bytes.read(offset)?;
                next = after;
                (u32::from(length) + 2) * 4
            }
            FRAGMENT => {
                let [after, _, high, low] = bytes.read(offset)?;
                next = after;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    packet.protocol = Protocol(u32::from(next));
                    return Some(());
                }
                8
            }
            protocol => {
                packet.protocol = Protocol(u32::from(protocol));
                return parse_payload(bytes, packet, protocol, offset);
            }
        };
        offset += length;
    }
    None
}

/// Reads ports and flags out of the payload at `offset`.
#[inline(always)]
fn parse_payload(bytes: &impl Bytes, packet: &mut Packet, protocol: u8, offset: u32) -> Option<()> {
    let ports = match protocol {
        TCP => {
            let [a, b, c, d, _, _, _, _, _, _, _, _, _, flags] = bytes.read(offset)?;
            packet.continues_tcp = flags & (TCP_SYN | TCP_ACK) != TCP_SYN;
            [a, b, c, d]
        }
        UDP | UDP_LITE | SCTP | DCCP => bytes.read(offset)?,
        _ => return Some(()),
    };
    let [s0, s1, d0, d1] = ports;
    packet.source_port = u16::from_be_bytes([s0, s1]);
    packet.destination_port = u16::from_be_bytes([d0, d1]);
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;

    fn parsed(bytes: &impl Bytes) -> Option<Packet> {
        let mut packet = Packet::UNKNOWN;
        parse(bytes, &mut packet).map(|()| packet)
    }

    impl Bytes for Vec<u8> {
        fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
            let start = usize::try_from(offset).unwrap();
            self.get(start..start + N)?.try_into().ok()
        }
    }

    const PAYLOAD: [u8; 4] = [0x30, 0x39, 0x00, 0x50];

    fn tcp(flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&PAYLOAD);
        segment[13] = flags;
        segment
    }

    fn v4(protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x40 | u8::try_from((20 + options) / 4).unwrap();
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        packet[16..20].copy_from_slice(&[127, 0, 0, 1]);
        packet.extend(payload);
        packet
    }

    /// Extensions are given as their number and the whole header, without the first byte.
    fn v6(extensions: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8..24].fill(1);
        packet[24..40].fill(2);
        let mut next_at = 6;
        for (number, rest) in extensions {
            packet[next_at] = *number;
            next_at = packet.len();
            packet.push(0);
            packet.extend(*rest);
        }
        packet[next_at] = protocol;
        packet.extend(payload);
        packet
    }

    fn ports(packet: &Packet) -> (u16, u16) {
        (packet.source_port, packet.destination_port)
    }

    #[test]
    fn v4_is_read_in_the_common_key_space() {
        let packet = parsed(&v4(UDP, 0, 0, &PAYLOAD)).unwrap();
        assert_eq!(packet.source, from_v4([192, 0, 2, 1]));
        assert_eq!(packet.destination, from_v4([127, 0, 0, 1]));
        assert_eq!(packet.protocol, Protocol::UDP);
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn options_are_stepped_over() {
        let packet = parsed(&v4(UDP, 40, 0, &PAYLOAD)).unwrap();
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn a_tcp_segment_opens_if_it_has_syn_and_not_ack() {
        for (flags, opens) in [
            (TCP_SYN, true),
            (TCP_SYN | 0xc0, true),
            (TCP_SYN | TCP_ACK, false),
            (TCP_ACK, false),
            (0, false),
            (0x04, false),
        ] {
            let v4 = parsed(&v4(TCP, 0, 0, &tcp(flags))).unwrap();
            let v6 = parsed(&v6(&[], TCP, &tcp(flags))).unwrap();
            assert_eq!((v4.continues_tcp, v6.continues_tcp), (!opens, !opens));
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        // More fragments follow; the offset is zero.
        let first = parsed(&v4(UDP, 0, 0x2000, &PAYLOAD)).unwrap();
        assert_eq!(ports(&first), (12345, 80));
        for fragment in [0x0001, 0x2001, 0x1fff] {
            let packet = parsed(&v4(TCP, 0, fragment, &tcp(TCP_ACK))).unwrap();
            assert_eq!(ports(&packet), (0, 0));
            assert!(!packet.continues_tcp);
        }
        let later = parsed(&v6(
            &[(FRAGMENT, &[0, 0, 8, 0, 0, 0, 0])],
            TCP,
            &tcp(TCP_ACK),
        ))
        .unwrap();
        assert_eq!((ports(&later), later.protocol), ((0, 0), Protocol::TCP));
        assert!(!later.continues_tcp);
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        let long = [&[1][..], &[0; 14]].concat();
        let packet = v6(
            &[
                (HOP_BY_HOP, &[0; 7]),
                (ROUTING, &long),
                (AUTHENTICATION, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                (FRAGMENT, &[0, 0, 1, 0, 0, 0, 0]),
                (DESTINATION, &[0; 7]),
            ],
            UDP,
            &PAYLOAD,
        );
        let packet = parsed(&packet).unwrap();
        assert_eq!((packet.source, packet.destination), ([1; 16], [2; 16]));
        assert_eq!(packet.protocol, Protocol::UDP);
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn a_chain_has_an_end() {
        let fits = vec![(DESTINATION, &[0; 7][..]); MAX_EXTENSIONS];
        assert!(parsed(&v6(&fits, UDP, &PAYLOAD)).is_some());
        let endless = vec![(DESTINATION, &[0; 7][..]); MAX_EXTENSIONS + 1];
        assert_eq!(parsed(&v6(&endless, UDP, &PAYLOAD)), None);
    }

    #[test]
    fn protocols_without_ports_have_none() {
        for protocol in [1, 50, 59, 253] {
            let packet = parsed(&v4(protocol, 0, 0, &[])).unwrap();
            assert_eq!(packet.protocol, Protocol(u32::from(protocol)));
            assert_eq!(ports(&packet), (0, 0));
        }
    }

    #[test]
    fn what_is_cut_short_is_no_packet() {
        let whole = [
            v4(TCP, 4, 0, &tcp(0)),
            v6(&[(ROUTING, &[0; 7])], TCP, &tcp(0)),
        ];
        for packet in whole {
            // All that is looked at ends with the flags.
            let needed = packet.len() - 6;
            for length in 0..needed {
                assert_eq!(parsed(&packet[..length].to_vec()), None, "{length}");
            }
            assert!(parsed(&packet[..needed].to_vec()).is_some());
        }
    }

    #[test]
    fn what_is_neither_v4_nor_v6_is_no_packet() {
        for first in [0x00, 0x35, 0x55, 0x70, 0x44] {
            let mut packet = v4(UDP, 0, 0, &PAYLOAD);
            packet[0] = first;
            assert_eq!(parsed(&packet), None, "{first:#x}");
        }
    }
}
