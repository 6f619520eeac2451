//! Takes any bytes as a packet. A second parser, written without words, word offsets or packed numbers, gives the same
//! result. The result depends neither on the size of the packet's linear part nor on the bytes after the headers.

#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use qfence_common::{
    Halves, Packet,
    address::from_v4,
    packet::{Bytes, MAX_EXTENSIONS, Payload, parse, read_address},
};

/// A packet whose first words are in its linear part.
struct Read<'a> {
    bytes: &'a [u8],
    at_hand: &'a [u32],
    /// The number of bytes from the beginning to the end of the last read.
    seen: Cell<usize>,
}

impl<'a> Read<'a> {
    fn new(bytes: &'a [u8], at_hand: &'a [u32]) -> Self {
        let seen = Cell::new(0);
        Self {
            bytes,
            at_hand,
            seen,
        }
    }

    fn see(&self, end: usize) {
        self.seen.set(self.seen.get().max(end));
    }
}

impl Bytes for Read<'_> {
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(4 * N)?;
        let bytes = self.bytes.get(start..end)?;
        self.see(end);
        let (words, []) = bytes.as_chunks() else {
            return None;
        };
        Some(words.first_chunk()?.map(u32::from_be_bytes))
    }

    fn linear<const N: usize>(&self) -> Option<&[u32; N]> {
        let words = self.at_hand.first_chunk()?;
        self.see(4 * N);
        Some(words)
    }
}

/// The result of the second parser.
#[derive(Debug, PartialEq, Eq)]
struct Naive {
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    ports: (u16, u16),
    continues_tcp: bool,
    resets_tcp: bool,
}

impl Naive {
    fn of(packet: &Packet) -> Self {
        let payload = packet.payload;
        Self {
            source: packet.source.address(),
            destination: packet.destination.address(),
            protocol: payload.protocol().0.try_into().unwrap_or(u8::MAX),
            ports: (payload.source_port(), payload.destination_port()),
            continues_tcp: payload.continues_tcp(),
            resets_tcp: payload.resets_tcp(),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<[u8; 16]> { bytes.get(at..at + 16)?.try_into().ok() };
        let v4 = |at: usize| -> Option<[u8; 16]> {
            Some(from_v4(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let version = bytes.first()? >> 4;
        let (source, destination, mut protocol, mut at, mut is_later_fragment);
        match version {
            4 => {
                (source, destination) = (v4(12)?, v4(16)?);
                protocol = bytes[9];
                at = usize::from(bytes[0] & 15) * 4;
                is_later_fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff != 0;
                if at < 20 {
                    return None;
                }
            }
            6 => {
                (source, destination) = (address(8)?, address(24)?);
                protocol = bytes[6];
                at = 40;
                is_later_fragment = false;
                let mut extensions = 0;
                while matches!(protocol, 0 | 43 | 44 | 51 | 60) && !is_later_fragment {
                    extensions += 1;
                    // The first parser reads a header in units of four bytes.
                    let header = bytes.get(at..at + 4)?;
                    let units = usize::from(header[1]);
                    at += match protocol {
                        44 => 8,
                        51 => 4 * (units + 2),
                        _ => 8 * (units + 1),
                    };
                    is_later_fragment =
                        protocol == 44 && u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
                    // The header of a later fragment ends the chain, as a payload does.
                    if extensions > MAX_EXTENSIONS && !is_later_fragment {
                        return None;
                    }
                    protocol = header[0];
                }
            }
            _ => return None,
        }
        let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut naive = Self {
            source,
            destination,
            protocol,
            ports: (0, 0),
            continues_tcp: false,
            resets_tcp: false,
        };
        if !is_later_fragment && matches!(protocol, 6 | 17 | 33 | 132 | 136) {
            naive.ports = (port(at)?, port(at + 2)?);
            if protocol == 6 {
                let flags = bytes.get(at + 12..at + 16)?[1];
                let (syn, rst, ack) = (flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
                naive.continues_tcp = !syn || ack;
                naive.resets_tcp = naive.continues_tcp && rst;
            }
        }
        Some(naive)
    }
}

/// Converts an IPv4 packet to IPv6: with v4-mapped addresses, and without options.
fn mapped(bytes: &[u8], naive: &Naive) -> Option<Vec<u8>> {
    let header = usize::from(bytes[0] & 15) * 4;
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, naive.protocol, 64];
    packet.extend(naive.source);
    packet.extend(naive.destination);
    // If the protocol has no ports, the packet may end within the options.
    packet.extend(bytes.get(header..)?);
    Some(packet)
}

fuzz_target!(|bytes: &[u8]| {
    let (words, _) = bytes.as_chunks();
    let words: Vec<u32> = words
        .iter()
        .take(20)
        .copied()
        .map(u32::from_ne_bytes)
        .collect();
    let whole = Read::new(bytes, &[]);
    let parsed = parse(&whole);
    assert_eq!(parsed.as_ref().map(Naive::of), Naive::parse(bytes));
    for at_hand in 0..=words.len() {
        let read = Read::new(bytes, &words[..at_hand]);
        assert_eq!(parse(&read), parsed, "{at_hand} words at hand");
        assert!(read.seen.get() <= bytes.len());
    }
    let Some(packet) = parsed else {
        return;
    };
    assert!(packet.payload.is_known());
    assert_eq!(Payload::from_bits(packet.payload.bits()), packet.payload);
    for (is_source, address) in [(true, packet.source), (false, packet.destination)] {
        assert_eq!(read_address(&whole, is_source), address);
        assert_eq!(Halves::of(address.address()), address);
    }
    // Neither the end of the packet nor other bytes in place of the unread ones change the result.
    let mut seen = bytes[..whole.seen.get()].to_vec();
    assert_eq!(parse(&Read::new(&seen, &[])), parsed);
    seen.extend(bytes[seen.len()..].iter().map(|byte| !byte));
    seen.extend([0xff; 8]);
    assert_eq!(parse(&Read::new(&seen, &[])), parsed);
    // An IPv4 address is the same destination in IPv6 packets.
    let is_fragment = bytes[6] & 0x1f != 0 || bytes[7] != 0;
    if bytes[0] >> 4 == 4 && !is_fragment && !matches!(bytes[9], 0 | 43 | 44 | 51 | 60) {
        let other = mapped(bytes, &Naive::of(&packet)).unwrap_or_default();
        assert!(other.is_empty() || parse(&Read::new(&other, &[])) == parsed);
    }
});
