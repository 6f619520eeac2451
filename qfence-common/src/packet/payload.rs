//! A packet's payload and its extension headers, each packed into one word.

use crate::Protocol;

/// What a packet carries, in one word: that is what a function can return in the kernel.
///
/// From the lowest bit: 16 of the destination port, 16 of the source port, 8 of the protocol, whether it goes on
/// with TCP, whether anything is known, and whether it resets a connection of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Payload(pub(super) u64);

const PROTOCOL_SHIFT: u32 = 32;
pub(super) const CONTINUES_TCP: u64 = 1 << 40;
const IS_KNOWN: u64 = 1 << 41;
pub(super) const RESETS_TCP: u64 = 1 << 42;

impl Payload {
    /// What cannot be understood.
    pub const UNKNOWN: Self = Self(0);

    pub(super) const fn of(number: u32) -> Self {
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

/// An extension header, in one word.
///
/// From the lowest bit: 8 for the number of what follows it, 16 for its length in bytes, and two for which of
/// the four it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Extension(pub(super) u32);

pub(super) const UNREADABLE: u32 = 0;
pub(super) const IS_PAYLOAD: u32 = 1;
pub(super) const IS_EXTENSION: u32 = 2;
/// One after which no header follows, for the packet is not the first of its fragments.
pub(super) const IS_LATER_FRAGMENT: u32 = 3;

pub(super) const LENGTH_SHIFT: u32 = 8;
pub(super) const WHICH_SHIFT: u32 = 24;

impl Extension {
    pub(super) const fn new(which: u32, next: u32, length: u32) -> Self {
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
