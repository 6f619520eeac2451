//! Reads whether a guest leaves the checksum of a frame to a device of the host, and where.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::frame::{
    checksum::{Left, PARTIAL},
    ethernet::HEADER,
};

use super::cast::{Address, Cast, Read, can_cast, offset};

/// Returns the checksum that is left to a device.
///
/// The kernel does not tell a program, so its `sk_buff` is read. What cannot be read counts as left at an unknown place.
#[inline(always)]
pub(crate) fn left(skb: *mut __sk_buff) -> Left {
    if offset(|offsets| &offsets.are_known) == 0 {
        return Left::ASTRAY;
    }
    if can_cast() {
        let kernels = Cast::of(skb);
        return left_by(&kernels, || place(&kernels));
    }
    left_by(&Address(skb), || Some(Left::from_bits(qfence_left_at(skb))))
}

#[inline(always)]
fn left_by(kernels: &impl Read, place: impl FnOnce() -> Option<Left>) -> Left {
    let shift = offset(|offsets| &offsets.summed_shift);
    let summed = offset(|offsets| &offsets.summed);
    let left = match kernels.read::<u8>(summed) {
        Some(byte) if u32::from(byte) >> (shift & 7) & 3 != PARTIAL => Some(Left::NONE),
        Some(_) => place(),
        None => None,
    };
    left.unwrap_or(Left::ASTRAY)
}

/// Returns the packed place of a checksum that is left to a device, read by the helper. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_left_at(skb: *mut __sk_buff) -> u64 {
    place(&Address(skb)).unwrap_or(Left::ASTRAY).bits()
}

#[inline(always)]
fn place(kernels: &impl Read) -> Option<Left> {
    // One after the other: see `hooks/frame/answer/reset.rs`.
    let head: u64 = kernels.read(offset(|offsets| &offsets.head))?;
    let data: u64 = kernels.read(offset(|offsets| &offsets.data))?;
    let start: u16 = kernels.read(offset(|offsets| &offsets.start))?;
    let from: u16 = kernels.read(offset(|offsets| &offsets.offset))?;
    // The bytes of a frame at a device begin with the Ethernet header.
    let packet = data.wrapping_sub(head).wrapping_add(u64::from(HEADER));
    Some(Left::at(u64::from(start).wrapping_sub(packet), from))
}
