//! Checksums that a guest leaves to a device of the host (`CHECKSUM_PARTIAL`), by the header of virtio.
//!
//! The guest names two bytes of its frame. The host writes the checksum there after the frame was judged, when it leaves by a
//! device that does not write checksums. So the two bytes must be none that a judgement depends on.

use crate::packet::Place;

/// The value of `sk_buff.ip_summed` for a checksum that is left to a device.
pub const PARTIAL: u32 = 3;

/// An upper bound of offsets in a `sk_buff`, one less than a power of two.
pub const MOST: u32 = 0x1ff;

/// The offsets in the kernel's `sk_buff`, in bytes. They differ between kernels; the loader reads them from the kernel's own
/// type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `head`: the address of the buffer.
    pub head: u32,
    /// `data`: the address of the frame in it.
    pub data: u32,
    /// `csum_start`: where the sum begins, from `head`.
    pub start: u32,
    /// `csum_offset`: where the checksum is, from there.
    pub offset: u32,
    /// The byte that has `ip_summed`, two bits.
    pub summed: u32,
    /// The number of bits below them.
    pub summed_shift: u32,
    /// 1 if those above are known; otherwise 0.
    pub are_known: u32,
    /// The number of the kernel's function `bpf_cast_to_kern_ctx` in its type information (Linux 6.2), if the programs call it;
    /// otherwise 0.
    pub casts: u32,
}

const _: () = assert!(size_of::<Offsets>() == 32 && align_of::<Offsets>() == 4);

/// A checksum that is left to a device, or none, packed into one word.
///
/// From the lowest bit: 16 bits for where the sum begins, from the IP header; 16 for where the checksum is, from there; one
/// that is set if a checksum is left; and one that is set if its place is unknown or before the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Left(u64);

const OFFSET_SHIFT: u32 = 16;
const IS_LEFT: u64 = 1 << 32;
const IS_ASTRAY: u64 = 1 << 33;

const TCP: u32 = 6;
const UDP: u32 = 17;
/// ICMP, IGMP and ICMPv6, which are judged by their contents.
const CONTROL: [u32; 3] = [1, 2, 58];

/// The offsets of the checksums in the headers of TCP and UDP.
const IN_TCP: u32 = 16;
const IN_UDP: u32 = 6;

/// How many bytes of a payload are read at most, except those of ICMP.
const READ: u32 = 20;

impl Left {
    /// The frame is complete.
    pub const NONE: Self = Self(0);

    /// A checksum is left, and nothing is known of its place.
    pub const ASTRAY: Self = Self(IS_LEFT | IS_ASTRAY);

    /// A checksum is left at `offset` from the byte `start` of the IP packet.
    #[must_use]
    #[inline(always)]
    pub const fn at(start: u64, offset: u16) -> Self {
        if start > u16::MAX as u64 {
            return Self::ASTRAY;
        }
        Self(IS_LEFT | (offset as u64) << OFFSET_SHIFT | start)
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

    /// Whether a checksum is left.
    #[must_use]
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 & IS_LEFT != 0
    }

    /// Whether it is the checksum of TCP or UDP of a packet whose payload is at this place.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_payload(self, place: Place) -> bool {
        self.is_behind(place)
            && self.start() == place.offset()
            && match place.number() {
                TCP => self.offset() == IN_TCP,
                UDP => self.offset() == IN_UDP,
                _ => false,
            }
    }

    /// Whether a device may write it into a packet whose payload is at this place, after the packet was judged. A packet in
    /// the packet, such as that of a tunnel, may have one too: the guest could have written any bytes there.
    #[must_use]
    #[inline(always)]
    pub const fn may_be_written(self, place: Place) -> bool {
        if !self.is_some() || self.is_of_payload(place) {
            return true;
        }
        let [icmp, igmp, icmp_v6] = CONTROL;
        let number = place.number();
        let has_tunnels = number != TCP && number != icmp && number != igmp && number != icmp_v6;
        has_tunnels
            && self.is_behind(place)
            && self.start() + self.offset() >= place.offset() + READ
    }

    /// Whether the sum begins in the payload, whose header the packet has.
    #[inline(always)]
    const fn is_behind(self, place: Place) -> bool {
        self.0 & (IS_LEFT | IS_ASTRAY) == IS_LEFT
            && place.is_known()
            && !place.is_later_fragment()
            && self.start() >= place.offset()
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    const fn start(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    const fn offset(self) -> u32 {
        (self.0 >> OFFSET_SHIFT) as u32 & 0xffff
    }
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

#[cfg(test)]
mod tests;
