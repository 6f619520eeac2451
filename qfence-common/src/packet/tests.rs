extern crate std;
use std::{vec, vec::Vec};

use super::*;
use crate::{Protocol, address::from_v4};

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

/// A packet whose first words are in one piece.
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

/// Parses a packet, and checks that the result does not depend on the number of words in one piece.
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

/// Each extension is given as its number and its header without the first byte.
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
    // More fragments follow, and the offset is zero.
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
        // The last word that the parser reads is the one with the flags.
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

#[test]
fn only_syn_with_ack_accepts() {
    for (flags, accepts) in [
        (SYN | ACK, true),
        (SYN, false),
        (ACK, false),
        (SYN | ACK | RST, false),
        (0, false),
    ] {
        let payload = parse(&v4(TCP, 0, 0, &tcp(flags))).unwrap().payload;
        assert_eq!(payload.accepts_tcp(), accepts, "{flags:#x}");
    }
}

#[test]
fn what_a_segment_carries_is_measured_behind_its_options() {
    let segment = |options: usize, data: usize| {
        let mut segment = tcp(SYN);
        segment[12] = u8::try_from((20 + options) / 4 * 16).unwrap();
        segment.resize(20 + options + data, 0);
        segment
    };
    let data = |packet: &Vec<u8>| tcp_data(packet, u32::try_from(packet.len()).unwrap());
    for (options, carried) in [(0, 0), (0, 5), (20, 0), (40, 1), (40, 1400)] {
        let segment = segment(options, carried);
        let expected = Some(u32::try_from(carried).unwrap());
        assert_eq!(data(&v4(TCP, 0, 0, &segment)), expected);
        assert_eq!(data(&v4(TCP, 40, 0, &segment)), expected);
        assert_eq!(data(&v6(&[], TCP, &segment)), expected);
    }
    assert_eq!(data(&v4(UDP, 0, 0, &segment(0, 0))), None);
    assert_eq!(
        data(&v6(&[(HOP_BY_HOP, &[0; 7])], TCP, &segment(0, 0))),
        None
    );
    assert_eq!(data(&v4(TCP, 0, 0, &segment(40, 0)[..20])), None);
    assert_eq!(data(&Vec::new()), None);
}

#[test]
fn the_payload_is_found_where_it_is_parsed() {
    let plain = locate(&v4(17, 0, 0, &PAYLOAD));
    assert!(plain.is_known() && plain.is_plain() && !plain.is_fragment());
    assert_eq!((plain.offset(), plain.number()), (20, 17));
    let options = locate(&v4(6, 8, 0, &tcp(SYN)));
    assert_eq!((options.offset(), options.number()), (28, 6));
    assert!(options.has_more_headers() && !options.is_plain() && !options.is_fragment());
    // The first fragment has the flag for more of them, and the others an offset.
    let first = locate(&v4(17, 0, 0x2000, &PAYLOAD));
    assert!(first.is_fragment() && !first.is_later_fragment() && !first.is_plain());
    let later = locate(&v4(17, 0, 0x0001, &PAYLOAD));
    assert!(later.is_fragment() && later.is_later_fragment() && later.is_known());
    assert_eq!(locate(&vec![0x44; 40]), Place::UNKNOWN);
    assert_eq!(locate(&vec![0x50; 40]), Place::UNKNOWN);
    assert_eq!(locate(&vec![0x45; 11]), Place::UNKNOWN);
    assert_eq!(Place::from_bits(first.bits()), first);
}

#[test]
fn the_payload_of_v6_is_found_behind_extension_headers() {
    let plain = locate(&v6(&[], 6, &tcp(SYN)));
    assert_eq!((plain.offset(), plain.number()), (40, 6));
    assert!(plain.is_plain());
    // Hop-by-hop options of 16 bytes, and the header of a fragment that is whole.
    let (hops, whole) = ([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0; 7]);
    let behind = locate(&v6(&[(0, &hops), (44, &whole)], 17, &PAYLOAD));
    assert_eq!((behind.offset(), behind.number()), (64, 17));
    assert!(behind.is_fragment() && !behind.is_later_fragment() && behind.has_more_headers());
    let later = locate(&v6(&[(44, &[0, 0, 9, 0, 0, 0, 0])], 17, &PAYLOAD));
    assert!(later.is_known() && later.is_later_fragment() && later.number() == 17);
    let endless: Vec<(u32, &[u8])> = vec![(60, &whole); MAX_EXTENSIONS + 1];
    assert_eq!(locate(&v6(&endless, 17, &PAYLOAD)), Place::UNKNOWN);
    assert!(locate(&v6(&endless[1..], 17, &PAYLOAD)).is_known());
    let mut hops = v6(&[], 58, &PAYLOAD);
    hops[7] = 255;
    assert_eq!(locate(&hops).hops(), 255);
}
