//! Reads an IP packet: where it comes from, where it goes, and whether it opens something.

use crate::{Halves, Protocol};

/// A packet, from its IP header on.
pub trait Bytes: Sized {
    /// `N` words at an offset in bytes, as numbers; `None` if the packet does not have them.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// The first `N` words in network order, if they are at hand in one piece; by no means all that are there.
    fn linear<const N: usize>(&self) -> Option<&[u32; N]>;

    /// [`read_payload`] of this packet, by way of whatever function suits.
    #[inline(always)]
    fn payload(&self, carried: Carried, offset: u32) -> Payload {
        read_payload(self, carried, offset)
    }

    /// [`read_extension`] of this packet, the same.
    #[inline(always)]
    fn extension(&self, number: u32, offset: u32) -> Extension {
        read_extension(self, number, offset)
    }
}

/// How many extension headers an IPv6 packet may have before its payload. Linux itself sends at most
/// five (hop-by-hop, destination, routing, fragment, destination).
pub const MAX_EXTENSIONS: usize = 8;

/// What of a packet a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: Halves,
    /// Where it goes: with source routing, the next hop.
    pub destination: Halves,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries, in one word: that is what a function can return in the kernel.
///
/// From the lowest bit: 16 of the destination port, 16 of the source port, 8 of the protocol, whether it goes on
/// with TCP, whether anything is known, and whether it resets a connection of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Payload(u64);

const PROTOCOL_SHIFT: u32 = 32;
const CONTINUES_TCP: u64 = 1 << 40;
const IS_KNOWN: u64 = 1 << 41;
const RESETS_TCP: u64 = 1 << 42;

impl Payload {
    /// What cannot be understood.
    pub const UNKNOWN: Self = Self(0);

    const fn of(number: u32) -> Self {
        Self(IS_KNOWN | (number as u64 & 0xff) << PROTOCOL_SHIFT)
    }

    /// All of it, as a number.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// That of which this is the number.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether it could be understood.
    #[must_use]
    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 & IS_KNOWN != 0
    }

    /// What the IP header carries, IPv6 extension headers left out.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(self) -> Protocol {
        Protocol((self.0 >> PROTOCOL_SHIFT) as u32 & 0xff)
    }

    /// The source port, for protocols that have one; 0 otherwise, and in fragments after the first.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub const fn source_port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The destination port, the same.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub const fn destination_port(self) -> u16 {
        self.0 as u16
    }

    /// Whether it is a TCP segment other than a SYN without ACK: it opens nothing.
    #[must_use]
    #[inline(always)]
    pub const fn continues_tcp(self) -> bool {
        self.0 & CONTINUES_TCP != 0
    }

    /// Whether it is a TCP segment that resets its connection: it carries nothing on.
    #[must_use]
    #[inline(always)]
    pub const fn resets_tcp(self) -> bool {
        self.0 & RESETS_TCP != 0
    }
}

/// The number of what follows an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// A protocol, or an extension header.
    pub number: u32,
    /// Whether extension headers may come before the payload.
    pub is_v6: bool,
}

/// An extension header, in one word.
///
/// From the lowest bit: 8 for the number of what follows it, 16 for its length in bytes, and two for which of
/// the four it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Extension(u32);

const UNREADABLE: u32 = 0;
const IS_PAYLOAD: u32 = 1;
const IS_EXTENSION: u32 = 2;
/// One after which no header follows, for the packet is not the first of its fragments.
const IS_LATER_FRAGMENT: u32 = 3;

const LENGTH_SHIFT: u32 = 8;
const WHICH_SHIFT: u32 = 24;

impl Extension {
    const fn new(which: u32, next: u32, length: u32) -> Self {
        Self(which << WHICH_SHIFT | (length & 0xffff) << LENGTH_SHIFT | next & 0xff)
    }

    /// All of it, as a number.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// That of which this is the number.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

// The protocol numbers that have a say here (IANA's list, IPPROTO_*).
const HOP_BY_HOP: u32 = 0;
const TCP: u32 = 6;
const UDP: u32 = 17;
const DCCP: u32 = 33;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const AUTHENTICATION: u32 = 51;
const DESTINATION: u32 = 60;
const SCTP: u32 = 132;
const UDP_LITE: u32 = 136;

// Of the fourth word of a TCP header, the one with the flags.
const TCP_SYN: u32 = 0x02 << 16;
const TCP_RST: u32 = 0x04 << 16;
const TCP_ACK: u32 = 0x10 << 16;

/// Reads a packet; `None` if it is none that can be understood whole.
#[inline(always)]
#[must_use]
pub fn parse(bytes: &impl Bytes) -> Option<Packet> {
    match parse_linear(bytes) {
        Some(packet) => Some(packet),
        None => parse_any(bytes),
    }
}

/// Reads what most packets are, UDP or TCP right behind the header, without a call of the kernel; `None` for
/// all others.
#[inline(always)]
fn parse_linear(bytes: &impl Bytes) -> Option<Packet> {
    let header: &[u32; 7] = bytes.linear()?;
    let [first, second, third, ..] = header.map(u32::from_be);
    if first >> 24 == 0x45 && second & 0x1fff == 0 {
        let flags = |bytes| Some(Bytes::linear::<9>(bytes)?[8]);
        Some(Packet {
            source: Halves::from_v4(u32::from_be(header[3])),
            destination: Halves::from_v4(u32::from_be(header[4])),
            payload: ports(bytes, third >> 16 & 0xff, header[5], flags)?,
        })
    } else if first >> 28 == 6 {
        let header: &[u32; 11] = bytes.linear()?;
        let flags = |bytes| Some(Bytes::linear::<14>(bytes)?[13]);
        let [_, _, s0, s1, s2, s3, d0, d1, d2, d3, both] = *header;
        Some(Packet {
            source: Halves::from_v6([s0, s1, s2, s3].map(u32::from_be)),
            destination: Halves::from_v6([d0, d1, d2, d3].map(u32::from_be)),
            payload: ports(bytes, second >> 8 & 0xff, both, flags)?,
        })
    } else {
        None
    }
}

/// What UDP and TCP carry, of the word with their ports and, of TCP, the one with the flags, in network order.
#[inline(always)]
fn ports<'a, B: Bytes>(
    bytes: &'a B,
    protocol: u32,
    ports: u32,
    flags: impl FnOnce(&'a B) -> Option<u32>,
) -> Option<Payload> {
    let Payload(known) = Payload::of(protocol);
    let flag = match protocol {
        TCP => continues(u32::from_be(flags(bytes)?)),
        UDP => 0,
        _ => return None,
    };
    Some(Payload(known | flag | u64::from(u32::from_be(ports))))
}

/// What the fourth word of a TCP header says on whether the segment opens a connection, or resets one.
#[inline(always)]
const fn continues(flags: u32) -> u64 {
    if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        0
    } else if flags & TCP_RST != 0 {
        CONTINUES_TCP | RESETS_TCP
    } else {
        CONTINUES_TCP
    }
}

#[inline(always)]
fn parse_any(bytes: &impl Bytes) -> Option<Packet> {
    // As much as either has: each read is a call of the kernel.
    let header: [u32; 5] = bytes.words(0)?;
    let packet = match header[0] >> 28 {
        4 => parse_v4(bytes, header),
        6 => parse_v6(bytes, header)?,
        _ => return None,
    };
    packet.payload.is_known().then_some(packet)
}

#[inline(always)]
fn parse_v4(bytes: &impl Bytes, header: [u32; 5]) -> Packet {
    let [first, fragment, protocol, source, destination] = header;
    let length = (first >> 24 & 0x0f) * 4;
    let carried = Carried {
        number: protocol >> 16 & 0xff,
        is_v6: false,
    };
    let payload = if length < 20 {
        Payload::UNKNOWN
    } else if fragment & 0x1fff != 0 {
        Payload::of(carried.number)
    } else {
        bytes.payload(carried, length)
    };
    Packet {
        source: Halves::from_v4(source),
        destination: Halves::from_v4(destination),
        payload,
    }
}

#[inline(always)]
fn parse_v6(bytes: &impl Bytes, header: [u32; 5]) -> Option<Packet> {
    let [_, next, s0, s1, s2] = header;
    let [s3, d0, d1, d2, d3] = bytes.words(20)?;
    let carried = Carried {
        number: next >> 8 & 0xff,
        is_v6: true,
    };
    Some(Packet {
        source: Halves::from_v6([s0, s1, s2, s3]),
        destination: Halves::from_v6([d0, d1, d2, d3]),
        payload: bytes.payload(carried, 40),
    })
}

/// One of the two addresses of a packet: the source or else the destination; zero if it has none.
#[inline(always)]
#[must_use]
pub fn read_address(bytes: &impl Bytes, source: bool) -> Halves {
    let version = bytes.words(0).map(|[first]| first >> 28);
    let at = |from, to| if source { from } else { to };
    let address = match version {
        Some(4) => bytes
            .words(at(12, 16))
            .map(|[number]| Halves::from_v4(number)),
        Some(6) => bytes.words(at(8, 24)).map(Halves::from_v6),
        _ => None,
    };
    address.unwrap_or(Halves::NONE)
}

/// Reads what an IP header carries, at that offset in bytes.
#[inline(always)]
#[must_use]
pub fn read_payload(bytes: &impl Bytes, carried: Carried, offset: u32) -> Payload {
    let Carried { mut number, is_v6 } = carried;
    let mut offset = offset;
    if is_v6 {
        let mut is_payload = false;
        // The last round is for what follows the last extension.
        for _ in 0..=MAX_EXTENSIONS {
            let Extension(extension) = bytes.extension(number, offset);
            let next = extension & 0xff;
            match extension >> WHICH_SHIFT {
                IS_EXTENSION => {
                    number = next;
                    offset += extension >> LENGTH_SHIFT & 0xffff;
                }
                IS_PAYLOAD => {
                    is_payload = true;
                    break;
                }
                IS_LATER_FRAGMENT => return Payload::of(next),
                _ => return Payload::UNKNOWN,
            }
        }
        if !is_payload {
            return Payload::UNKNOWN;
        }
    }
    read_ports(bytes, number, offset).unwrap_or(Payload::UNKNOWN)
}

/// Reads the extension header of that number at that offset in bytes, if it is one.
#[inline(always)]
#[must_use]
pub fn read_extension(bytes: &impl Bytes, number: u32, offset: u32) -> Extension {
    if !matches!(
        number,
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT
    ) {
        return Extension::new(IS_PAYLOAD, number, 0);
    }
    let Some([word]) = bytes.words(offset) else {
        return Extension::new(UNREADABLE, 0, 0);
    };
    let (next, length) = (word >> 24, word >> 16 & 0xff);
    match number {
        FRAGMENT if word & 0xfff8 != 0 => Extension::new(IS_LATER_FRAGMENT, next, 0),
        FRAGMENT => Extension::new(IS_EXTENSION, next, 8),
        AUTHENTICATION => Extension::new(IS_EXTENSION, next, (length + 2) * 4),
        _ => Extension::new(IS_EXTENSION, next, (length + 1) * 8),
    }
}

/// Reads ports and flags out of the header of a protocol.
#[inline(always)]
fn read_ports(bytes: &impl Bytes, protocol: u32, offset: u32) -> Option<Payload> {
    let Payload(known) = Payload::of(protocol);
    let (ports, flag) = match protocol {
        TCP => {
            let [ports, _, _, flags] = bytes.words(offset)?;
            (ports, continues(flags))
        }
        UDP | UDP_LITE | SCTP | DCCP => {
            let [ports] = bytes.words(offset)?;
            (ports, 0)
        }
        _ => (0, 0),
    };
    Some(Payload(known | flag | u64::from(ports)))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;
    use crate::address::from_v4;

    impl Bytes for Vec<u8> {
        fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
            let start = usize::try_from(offset).unwrap();
            let bytes = self.get(start..start + 4 * N)?;
            let word = |at: usize| bytes[4 * at..4 * at + 4].try_into().unwrap();
            Some(core::array::from_fn(|at| u32::from_be_bytes(word(at))))
        }

        fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
            None
        }
    }

    /// One whose first words are at hand.
    struct Linear {
        bytes: Vec<u8>,
        words: Vec<u32>,
    }

    impl Bytes for Linear {
        fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
            self.bytes.words(offset)
        }

        fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
            self.words.first_chunk()
        }
    }

    /// However much of it is at hand, a packet is read alike.
    fn parse(bytes: &Vec<u8>) -> Option<Packet> {
        let parsed = super::parse(bytes);
        let (words, _) = bytes.as_chunks();
        for at_hand in 0..=words.len() {
            let linear = Linear {
                bytes: bytes.clone(),
                words: words[..at_hand]
                    .iter()
                    .copied()
                    .map(u32::from_ne_bytes)
                    .collect(),
            };
            assert_eq!(super::parse(&linear), parsed, "{at_hand} words at hand");
        }
        parsed
    }

    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    const PAYLOAD: [u8; 4] = [0x30, 0x39, 0x00, 0x50];

    fn byte(number: u32) -> u8 {
        number.try_into().unwrap()
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&PAYLOAD);
        segment[13] = flags;
        segment
    }

    fn v4(protocol: u32, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x40 | u8::try_from((20 + options) / 4).unwrap();
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = byte(protocol);
        packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
        packet[16..20].copy_from_slice(&[127, 0, 0, 1]);
        packet.extend(payload);
        packet
    }

    /// Extensions are given as their number and the whole header, without the first byte.
    fn v6(extensions: &[(u32, &[u8])], protocol: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8..24].fill(1);
        packet[24..40].fill(2);
        let mut next_at = 6;
        for (number, rest) in extensions {
            packet[next_at] = byte(*number);
            next_at = packet.len();
            packet.push(0);
            packet.extend(*rest);
        }
        packet[next_at] = byte(protocol);
        packet.extend(payload);
        packet
    }

    fn ports(packet: &Packet) -> (u16, u16) {
        let payload = packet.payload;
        (payload.source_port(), payload.destination_port())
    }

    #[test]
    fn v4_is_read_in_the_common_key_space() {
        let packet = parse(&v4(UDP, 0, 0, &PAYLOAD)).unwrap();
        assert_eq!(packet.source, Halves::of(from_v4([192, 0, 2, 1])));
        assert_eq!(packet.destination, Halves::of(from_v4([127, 0, 0, 1])));
        assert_eq!(packet.payload.protocol(), Protocol::UDP);
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn options_are_stepped_over() {
        let packet = parse(&v4(UDP, 40, 0, &PAYLOAD)).unwrap();
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn a_tcp_segment_opens_if_it_has_syn_and_not_ack() {
        for (flags, opens) in [
            (SYN, true),
            (SYN | 0xc0, true),
            (SYN | ACK, false),
            (ACK, false),
            (0, false),
            (RST, false),
        ] {
            let v4 = parse(&v4(TCP, 0, 0, &tcp(flags))).unwrap();
            let v6 = parse(&v6(&[], TCP, &tcp(flags))).unwrap();
            assert_eq!(
                (v4.payload.continues_tcp(), v6.payload.continues_tcp()),
                (!opens, !opens)
            );
            let resets = flags == RST;
            assert_eq!(
                (v4.payload.resets_tcp(), v6.payload.resets_tcp()),
                (resets, resets)
            );
        }
    }

    #[test]
    fn only_the_first_fragment_has_ports() {
        // More fragments follow; the offset is zero.
        let first = parse(&v4(UDP, 0, 0x2000, &PAYLOAD)).unwrap();
        assert_eq!(ports(&first), (12345, 80));
        for fragment in [0x0001, 0x2001, 0x1fff] {
            let packet = parse(&v4(TCP, 0, fragment, &tcp(ACK))).unwrap();
            assert_eq!(ports(&packet), (0, 0));
            assert!(!packet.payload.continues_tcp());
        }
        let later = parse(&v6(&[(FRAGMENT, &[0, 0, 8, 0, 0, 0, 0])], TCP, &tcp(ACK))).unwrap();
        assert_eq!(
            (ports(&later), later.payload.protocol()),
            ((0, 0), Protocol::TCP)
        );
        assert!(!later.payload.continues_tcp());
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
        let packet = parse(&packet).unwrap();
        let ends = (packet.source, packet.destination);
        assert_eq!(ends, (Halves::of([1; 16]), Halves::of([2; 16])));
        assert_eq!(packet.payload.protocol(), Protocol::UDP);
        assert_eq!(ports(&packet), (12345, 80));
    }

    #[test]
    fn a_chain_has_an_end() {
        let fits = vec![(DESTINATION, &[0; 7][..]); MAX_EXTENSIONS];
        assert!(parse(&v6(&fits, UDP, &PAYLOAD)).is_some());
        let endless = vec![(DESTINATION, &[0; 7][..]); MAX_EXTENSIONS + 1];
        assert_eq!(parse(&v6(&endless, UDP, &PAYLOAD)), None);
    }

    #[test]
    fn protocols_without_ports_have_none() {
        for protocol in [1, 50, 59, 253] {
            let packet = parse(&v4(protocol, 0, 0, &[])).unwrap();
            assert_eq!(packet.payload.protocol(), Protocol(protocol));
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
            // All that is looked at ends with the word that has the flags.
            let needed = packet.len() - 4;
            for length in 0..needed {
                assert_eq!(parse(&packet[..length].to_vec()), None, "{length}");
            }
            assert!(parse(&packet[..needed].to_vec()).is_some());
        }
    }

    #[test]
    fn what_is_neither_v4_nor_v6_is_no_packet() {
        for first in [0x00, 0x35, 0x55, 0x70, 0x44] {
            let mut packet = v4(UDP, 0, 0, &PAYLOAD);
            packet[0] = first;
            assert_eq!(parse(&packet), None, "{first:#x}");
        }
    }
}
