//! Parses an IP packet: its source, its destination, and whether it opens a connection.

mod payload;
mod place;

use core::hint::cold_path;

use crate::Halves;

use payload::{
    ACCEPTS_TCP, CONTINUES_TCP, IS_EXTENSION, IS_LATER_FRAGMENT, IS_PAYLOAD, LENGTH_SHIFT,
    RESETS_TCP, UNREADABLE, WHICH_SHIFT,
};
pub use payload::{Extension, Payload};
pub use place::{Place, locate};

/// A packet, from its IP header on.
pub trait Bytes: Sized {
    /// Returns `N` words at an offset in bytes, as numbers; `None` if the packet ends before.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Returns the first `N` words in network order if the buffer has them in one piece. A packet can be longer than
    /// that piece.
    fn linear<const N: usize>(&self) -> Option<&[u32; N]>;

    /// [`read_payload`] of this packet. An implementation can call it through another function.
    #[inline(always)]
    fn payload(&self, carried: Carried, offset: u32) -> Payload {
        read_payload(self, carried, offset)
    }

    /// [`read_extension`] of this packet. An implementation can call it through another function.
    #[inline(always)]
    fn extension(&self, number: u32, offset: u32) -> Extension {
        read_extension(self, number, offset)
    }
}

/// The maximum number of extension headers of an IPv6 packet before its payload. Linux itself sends at most five
/// (hop-by-hop, destination, routing, fragment, destination).
pub const MAX_EXTENSIONS: usize = 8;

/// The parts of a packet that matter to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub source: Halves,
    /// The destination address; with source routing, the next hop.
    pub destination: Halves,
    /// The payload.
    pub payload: Payload,
}

/// The next header after an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The number of a protocol, or of an extension header.
    pub number: u32,
    /// Whether extension headers may precede the payload.
    pub is_v6: bool,
}

// The protocol numbers that are parsed differently (IANA's list, IPPROTO_*).
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

// The flags in the fourth word of a TCP header.
const TCP_SYN: u32 = 0x02 << 16;
const TCP_RST: u32 = 0x04 << 16;
const TCP_ACK: u32 = 0x10 << 16;

/// Parses a packet; `None` if it cannot be parsed completely.
#[inline(always)]
#[must_use]
pub fn parse(bytes: &impl Bytes) -> Option<Packet> {
    match parse_linear(bytes) {
        Some(packet) => Some(packet),
        None => {
            cold_path();
            parse_any(bytes)
        }
    }
}

/// Parses the common case, UDP or TCP directly after the IP header, without a helper call; `None` for all other
/// packets.
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

/// Builds the payload of UDP or TCP from the word with its ports and, for TCP, the word with its flags, both in network
/// order.
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

/// Whether a segment opens a connection, accepts, continues or resets one, by the fourth word of its TCP header.
#[inline(always)]
const fn continues(flags: u32) -> u64 {
    if flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        0
    } else if flags & TCP_RST != 0 {
        CONTINUES_TCP | RESETS_TCP
    } else if flags & TCP_SYN != 0 {
        CONTINUES_TCP | ACCEPTS_TCP
    } else {
        CONTINUES_TCP
    }
}

/// The length in bytes of what a TCP segment carries behind its header. `None` if the packet is none, if it is cut off,
/// or if IPv6 extension headers precede the segment. `length` is that of the packet.
#[inline(always)]
#[must_use]
pub fn tcp_data(bytes: &impl Bytes, length: u32) -> Option<u32> {
    let [first, second, third] = bytes.words(0)?;
    let (protocol, header) = match first >> 28 {
        4 => (third >> 16 & 0xff, (first >> 24 & 0x0f) * 4),
        6 => (second >> 8 & 0xff, 40),
        _ => return None,
    };
    if protocol != TCP {
        return None;
    }
    let [flags] = bytes.words(header + 12)?;
    length.checked_sub(header + (flags >> 28) * 4)
}

#[inline(always)]
fn parse_any(bytes: &impl Bytes) -> Option<Packet> {
    // The largest size that both headers have: each read is a helper call.
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

/// Reads the source or else the destination address of a packet; zero if it has none.
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

/// Reads the source and the destination address of a packet; zero if it has none. Quicker than one after the other, for the
/// CPU and for the verifier.
#[inline(always)]
#[must_use]
pub fn read_addresses(bytes: &impl Bytes) -> (Halves, Halves) {
    let addresses = match bytes.words(0).map(|[first]| first >> 28) {
        Some(4) => bytes
            .words(12)
            .map(|[source, destination]| (Halves::from_v4(source), Halves::from_v4(destination))),
        Some(6) => bytes.words(8).map(|[a, b, c, d, e, f, g, h]| {
            (Halves::from_v6([a, b, c, d]), Halves::from_v6([e, f, g, h]))
        }),
        _ => None,
    };
    addresses.unwrap_or((Halves::NONE, Halves::NONE))
}

/// Reads the payload that follows an IP header, at an offset in bytes.
#[inline(always)]
#[must_use]
pub fn read_payload(bytes: &impl Bytes, carried: Carried, offset: u32) -> Payload {
    let Carried { mut number, is_v6 } = carried;
    let mut offset = offset;
    if is_v6 {
        let mut is_payload = false;
        // The last iteration is for the payload after the last extension header.
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

/// Reads the header at an offset in bytes, if its number is that of an extension header.
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

/// Reads ports and flags from the header of a protocol.
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
mod tests;
