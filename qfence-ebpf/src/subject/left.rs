//! Reads whether a guest leaves the checksum of a frame to a device of the host, and where.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel};
use qfence_common::frame::{
    checksum::{Left, MOST, PARTIAL},
    ethernet::HEADER,
};

use crate::maps::frame::FRAME_OFFSETS;

/// Returns the checksum that is left to a device.
///
/// The kernel does not tell a program, so its `sk_buff` is read: the context is its address (`bpf_prog_run` in
/// net/core/dev.c). What cannot be read counts as left at an unknown place.
#[inline(always)]
pub(crate) fn left(skb: *mut __sk_buff) -> Left {
    let offsets = FRAME_OFFSETS.load();
    if offsets.are_known == 0 {
        return Left::ASTRAY;
    }
    match read::<u8>(skb, offsets.summed) {
        Some(byte) if u32::from(byte) >> (offsets.summed_shift & 7) & 3 != PARTIAL => Left::NONE,
        Some(_) => Left::from_bits(qfence_left_at(skb)),
        None => Left::ASTRAY,
    }
}

/// Returns the packed place of a checksum that is left to a device. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_left_at(skb: *mut __sk_buff) -> u64 {
    place(skb).unwrap_or(Left::ASTRAY).bits()
}

#[inline(always)]
fn place(skb: *mut __sk_buff) -> Option<Left> {
    let offsets = FRAME_OFFSETS.load();
    // One after the other: see `hooks/frame/answer.rs`.
    let head: u64 = read(skb, offsets.head)?;
    let data: u64 = read(skb, offsets.data)?;
    let start: u16 = read(skb, offsets.start)?;
    let offset: u16 = read(skb, offsets.offset)?;
    // The bytes of a frame at a device begin with the Ethernet header.
    let packet = data.wrapping_sub(head).wrapping_add(u64::from(HEADER));
    Some(Left::at(u64::from(start).wrapping_sub(packet), offset))
}

/// Reads a member of the `sk_buff`. The offset is masked, because the verifier requires a bound for numbers that are added
/// to a context.
#[inline(always)]
fn read<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let address = skb as u64 + u64::from(offset & MOST);
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
