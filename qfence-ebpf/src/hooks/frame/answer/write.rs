//! Writes an answer into the frame, and sends it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_skb_vlan_pop},
};
use qfence_common::frame::{
    REVERSED,
    answer::{MOST_OPTIONS_V6, NO_OPTIONS, no_options_v6},
    ethernet::{HEADER, Macs},
};

use super::{V4, V6};
use crate::{
    hooks::frame::DROP,
    subject::frame::{device_index, macs},
};

/// Fills the room behind an IPv4 header. Returns 0 if the kernel does not do it.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_no_options_v4(skb: *mut __sk_buff, room: u32) -> u32 {
    // A header has at most forty bytes of options.
    for word in 0..10 {
        if 4 * word >= room {
            return 1;
        }
        if !store(skb, V4 + 4 * word, &[NO_OPTIONS]) {
            return 0;
        }
    }
    (room <= 40).into()
}

/// Fills the room behind an IPv6 header. Returns 0 if the kernel does not do it, or if there is too much room.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_no_options_v6(
    skb: *mut __sk_buff,
    room: u32,
    protocol: u32,
) -> u32 {
    if !room.is_multiple_of(8) || room > 8 * MOST_OPTIONS_V6 {
        return 0;
    }
    for header in 0..MOST_OPTIONS_V6 {
        if 8 * header >= room {
            break;
        }
        let is_last = 8 * header + 8 == room;
        let words = no_options_v6(is_last.then_some(protocol));
        if !store(skb, V6 + 8 * header, &words) {
            return 0;
        }
    }
    1
}

/// Makes the frame one for its sender, with an IP packet of so many bytes. Returns false if the kernel does not do it.
#[inline(always)]
pub(super) fn begin(skb: *mut __sk_buff, length: u32) -> bool {
    let addresses: [u32; 3] = Macs::answer(macs(skb)).map(u32::to_be);
    resize(skb, length) && write(skb, 0, &addresses)
}

/// Gives the frame an IP packet of so many bytes, which are to be written. Returns false if the kernel does not do it.
#[inline(always)]
pub(in crate::hooks::frame) fn resize(skb: *mut __sk_buff, length: u32) -> bool {
    // A tag with a priority, which the kernel has taken out of the frame, would be put into the answer.
    // SAFETY: the hook's own context.
    if unsafe { (*skb).vlan_present } != 0 && unsafe { bpf_skb_vlan_pop(skb) } != 0 {
        return false;
    }
    // It also makes the bytes writable, and ends what was divided into segments.
    // SAFETY: the hook's own context.
    unsafe { bpf_skb_change_tail(skb, HEADER + length, 0) == 0 }
}

/// Sends a frame to where it came from, if the answer was written.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a value of the hook")]
pub(in crate::hooks::frame) fn send(skb: *mut __sk_buff, is_written: bool, flags: u32) -> i32 {
    if !is_written {
        return DROP;
    }
    let way = if flags & REVERSED != 0 {
        u64::from(BPF_F_INGRESS)
    } else {
        0
    };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(device_index(skb), way) as i32 }
}

/// Writes words into the packet in a frame. Returns false if the kernel does not do it.
#[inline(always)]
pub(super) fn store<const N: usize>(skb: *mut __sk_buff, offset: u32, words: &[u32; N]) -> bool {
    write(skb, HEADER + offset, &words.map(u32::to_be))
}

/// Writes words in network order into a frame. Returns false if the kernel does not do it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
fn write<const N: usize>(skb: *mut __sk_buff, offset: u32, words: &[u32; N]) -> bool {
    let length = size_of::<[u32; N]>() as u32;
    write_bytes(skb, offset, words.as_ptr().cast(), length)
}

/// Writes `length` bytes into a frame, which `bytes` must have. Returns false if the kernel does not do it.
#[inline(always)]
pub(in crate::hooks::frame) fn write_bytes(
    skb: *mut __sk_buff,
    offset: u32,
    bytes: *const u8,
    length: u32,
) -> bool {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the caller has so many bytes; the verifier checks that.
    unsafe { bpf_skb_store_bytes(skb, offset, bytes.cast(), length, flags) == 0 }
}
