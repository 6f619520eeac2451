//! A packet's payload, and an extension header, each packed into one word.

use crate::Protocol;

/// The payload of a packet, packed into one word, because a function in the kernel can return only a word.
///
/// From the lowest bit: 16 bits for the destination port, 16 for the source port, 8 for the protocol, one that is set
/// if the segment continues a TCP connection, one that is set if the payload was parsed, one that is set if the segment
/// resets a TCP connection, and one that is set if it accepts one (SYN and ACK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Payload(pub(super) u64);

const PROTOCOL_SHIFT: u32 = 32;
pub(super) const CONTINUES_TCP: u64 = 1 << 40;
const IS_KNOWN: u64 = 1 << 41;
pub(super) const RESETS_TCP: u64 = 1 << 42;
pub(super) const ACCEPTS_TCP: u64 = 1 << 43;

impl Payload {
    /// A payload that cannot be parsed.
    pub const UNKNOWN: Self = Self(0);

    pub(super) const fn of(number: u32) -> Self {
        Self(IS_KNOWN | (number as u64 & 0xff) << PROTOCOL_SHIFT)
    }

    /// Returns the packed word.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Unpacks a word.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the payload was parsed.
    #[must_use]
    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 & IS_KNOWN != 0
    }

    /// The protocol after the IP header and its IPv6 extension headers.
    #[must_use]
    #[inline(always)]
    pub const fn protocol(self) -> Protocol {
        Protocol((self.0 >> PROTOCOL_SHIFT) as u32 & 0xff)
    }

    /// The source port; 0 for protocols without ports, and in fragments after the first.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub const fn source_port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The destination port; 0 for protocols without ports, and in fragments after the first.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub const fn destination_port(self) -> u16 {
        self.0 as u16
    }

    /// Whether it is a TCP segment that opens no connection: any but a SYN without ACK.
    #[must_use]
    #[inline(always)]
    pub const fn continues_tcp(self) -> bool {
        self.0 & CONTINUES_TCP != 0
    }

    /// Whether it is a TCP segment that resets its connection, and so carries no more data.
    #[must_use]
    #[inline(always)]
    pub const fn resets_tcp(self) -> bool {
        self.0 & RESETS_TCP != 0
    }

    /// Whether it is a TCP segment by which a listener answers a SYN.
    #[must_use]
    #[inline(always)]
    pub const fn accepts_tcp(self) -> bool {
        self.0 & ACCEPTS_TCP != 0
    }
}

/// An extension header, packed into one word.
///
/// From the lowest bit: 8 bits for the number of the next header, 16 for the length in bytes, and two for one of the
/// four kinds below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Extension(pub(super) u32);

pub(super) const UNREADABLE: u32 = 0;
pub(super) const IS_PAYLOAD: u32 = 1;
pub(super) const IS_EXTENSION: u32 = 2;
/// A fragment header of a later fragment: no further header follows.
pub(super) const IS_LATER_FRAGMENT: u32 = 3;

pub(super) const LENGTH_SHIFT: u32 = 8;
pub(super) const WHICH_SHIFT: u32 = 24;

impl Extension {
    pub(super) const fn new(which: u32, next: u32, length: u32) -> Self {
        Self(which << WHICH_SHIFT | (length & 0xffff) << LENGTH_SHIFT | next & 0xff)
    }

    /// Returns the packed word.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Unpacks a word.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}
