//! Where the payload of a packet begins, for messages that are read beyond their ports.

use super::{
    Bytes, Extension, FRAGMENT, IS_EXTENSION, IS_LATER_FRAGMENT, IS_PAYLOAD, LENGTH_SHIFT,
    MAX_EXTENSIONS, WHICH_SHIFT,
};

/// The place of a packet's payload, packed into one word, because a function in the kernel can return only a word.
///
/// From the lowest bit: 16 bits for the offset from the IP header, 8 for the protocol, 8 for the hop limit, one that is
/// set if the place is known, one that is set in every fragment, one that is set in fragments after the first, and one
/// that is set if options or extension headers precede the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(u64);

const NUMBER_SHIFT: u32 = 16;
const HOPS_SHIFT: u32 = 24;
const IS_KNOWN: u64 = 1 << 32;
const IS_FRAGMENT: u64 = 1 << 33;
const IS_LATER: u64 = 1 << 34;
const HAS_MORE: u64 = 1 << 35;

impl Place {
    /// The place in a packet that cannot be parsed.
    pub const UNKNOWN: Self = Self(0);

    #[inline(always)]
    const fn new(offset: u32, number: u32, hops: u32, flags: u64) -> Self {
        let number = (number as u64 & 0xff) << NUMBER_SHIFT;
        Self(offset as u64 & 0xffff | number | (hops as u64 & 0xff) << HOPS_SHIFT | flags)
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

    /// Whether the place is known.
    #[must_use]
    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 & IS_KNOWN != 0
    }

    /// The offset in bytes from the IP header; meaningless in fragments after the first.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub const fn offset(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    /// The number of the protocol.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits of it")]
    pub const fn number(self) -> u32 {
        (self.0 >> NUMBER_SHIFT) as u32 & 0xff
    }

    /// The hop limit, or the time to live.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits of it")]
    pub const fn hops(self) -> u32 {
        (self.0 >> HOPS_SHIFT) as u32 & 0xff
    }

    /// Whether the packet is a fragment. An IPv6 packet with a fragment header counts as one even if it is whole.
    #[must_use]
    #[inline(always)]
    pub const fn is_fragment(self) -> bool {
        self.0 & IS_FRAGMENT != 0
    }

    /// Whether the packet is a fragment after the first, so that its payload has no header.
    #[must_use]
    #[inline(always)]
    pub const fn is_later_fragment(self) -> bool {
        self.0 & IS_LATER != 0
    }

    /// Whether the payload follows the IP header directly, without options or extension headers, and is whole.
    #[must_use]
    #[inline(always)]
    pub const fn is_plain(self) -> bool {
        self.0 & (IS_KNOWN | IS_FRAGMENT | HAS_MORE) == IS_KNOWN
    }

    /// Whether options or extension headers precede the payload.
    #[must_use]
    #[inline(always)]
    pub const fn has_more_headers(self) -> bool {
        self.0 & HAS_MORE != 0
    }
}

/// Finds the payload of a packet.
#[must_use]
#[inline(always)]
pub fn locate(bytes: &impl Bytes) -> Place {
    let Some([first, second, third]) = bytes.words(0) else {
        return Place::UNKNOWN;
    };
    match first >> 28 {
        4 => {
            let length = (first >> 24 & 0x0f) * 4;
            if length < 20 {
                return Place::UNKNOWN;
            }
            let mut flags = IS_KNOWN;
            // The flag for more fragments, and the offset.
            if second & 0x3fff != 0 {
                flags |= IS_FRAGMENT;
            }
            if second & 0x1fff != 0 {
                flags |= IS_LATER;
            }
            if length > 20 {
                flags |= HAS_MORE;
            }
            Place::new(length, third >> 16 & 0xff, third >> 24, flags)
        }
        6 => locate_v6(bytes, second >> 8 & 0xff, second & 0xff),
        _ => Place::UNKNOWN,
    }
}

#[inline(always)]
fn locate_v6(bytes: &impl Bytes, next: u32, hops: u32) -> Place {
    let (mut number, mut offset, mut flags) = (next, 40, IS_KNOWN);
    // The last iteration is for the payload after the last extension header.
    for _ in 0..=MAX_EXTENSIONS {
        let Extension(extension) = bytes.extension(number, offset);
        let next = extension & 0xff;
        match extension >> WHICH_SHIFT {
            IS_PAYLOAD => return Place::new(offset, number, hops, flags),
            IS_EXTENSION => {
                flags |= HAS_MORE;
                if number == FRAGMENT {
                    flags |= IS_FRAGMENT;
                }
                number = next;
                offset += extension >> LENGTH_SHIFT & 0xffff;
            }
            IS_LATER_FRAGMENT => {
                let later = flags | HAS_MORE | IS_FRAGMENT | IS_LATER;
                return Place::new(offset, next, hops, later);
            }
            _ => return Place::UNKNOWN,
        }
    }
    Place::UNKNOWN
}
