//! Answers other packets by an ICMP error.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use qfence_common::{
    Protocol,
    frame::{
        ANSWER_UNREACHABLE,
        answer::{Layout, PORT, PROHIBITED, Quoted, Unreachable, unreachable_v4, unreachable_v6},
        ethernet::HEADER,
    },
    packet::{Bytes as _, Place},
};

use super::{
    V4, V6, layout,
    write::{begin, qfence_no_options_v4, qfence_no_options_v6, send, store},
};
use crate::{hooks::frame::DROP, maps::frame::DENY_FRAMES_WITH, subject::frame::Frame};

/// The code of an ICMP error.
#[inline(always)]
pub(in crate::hooks::frame) fn code() -> Unreachable {
    if DENY_FRAMES_WITH.load() == ANSWER_UNREACHABLE {
        PORT
    } else {
        PROHIBITED
    }
}

/// The most bytes of a packet that an ICMP error quotes, and the least: an IPv4 header, and eight bytes.
const MOST_QUOTED: u32 = 127;
const LEAST_QUOTED: u32 = 28;

/// Words for what is quoted. There is room for whatever [`bounded`] returns.
type Words = [u32; 39];

const _: () = assert!(size_of::<Words>() >= 127 + 28);

/// Returns a length with bounds that the verifier sees. Before Linux 6.8 it learns nothing from a comparison with zero, and a
/// helper takes no length that may be zero.
#[inline(always)]
const fn bounded(length: u32) -> u32 {
    (length.wrapping_sub(LEAST_QUOTED) & 127) + LEAST_QUOTED
}

/// Answers by an ICMP error. It quotes all headers, and eight bytes behind them: by less the sender would not find its
/// socket.
#[inline(always)]
pub(super) fn error(skb: *mut __sk_buff, is_v6: bool, place: Place, flags: u32) -> i32 {
    let header = if is_v6 { V6 } else { V4 };
    let Some(layout) = layout(skb, place, header) else {
        return DROP;
    };
    let length = place.offset() + 8;
    if length > MOST_QUOTED {
        return DROP;
    }
    let sum = qfence_sum_of_quoted(skb, length);
    if sum == u64::MAX || qfence_quote(skb, header + layout.room + 8, length) == 0 {
        return DROP;
    }
    let length = u64::from(length) << 32 | u64::from(flags);
    if is_v6 {
        qfence_unreachable_v6(skb, layout.bits(), sum, length)
    } else {
        qfence_unreachable_v4(skb, layout.bits(), sum, length)
    }
}

/// Returns the sum of the words that are quoted; `u64::MAX` if the packet has fewer bytes.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_sum_of_quoted(skb: *mut __sk_buff, length: u32) -> u64 {
    let mut words: Words = [0; 39];
    if !read_beginning(skb, &mut words, length) {
        return u64::MAX;
    }
    let mut sum = 0;
    for word in &words {
        sum += u64::from(u32::from_be(*word));
    }
    sum
}

/// Makes the frame an answer whose packet ends in what is quoted, which begins at an offset. The rest of the packet is to be
/// written. Returns 0 if the kernel does not do it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_quote(skb: *mut __sk_buff, offset: u32, length: u32) -> u32 {
    let mut words: Words = [0; 39];
    if !read_beginning(skb, &mut words, length) || !begin(skb, offset + length) {
        return 0;
    }
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    let (from, length) = (words.as_ptr().cast(), bounded(length));
    // SAFETY: the array has at least as many bytes.
    let failed = unsafe { bpf_skb_store_bytes(skb, HEADER + offset, from, length, flags) };
    (failed == 0).into()
}

/// Reads the first bytes of a packet, as words in network order. Returns false if it has fewer.
#[inline(always)]
fn read_beginning(skb: *mut __sk_buff, words: &mut Words, length: u32) -> bool {
    let length = bounded(length);
    // SAFETY: the array has at least as many bytes.
    unsafe { bpf_skb_load_bytes(skb.cast(), HEADER, words.as_mut_ptr().cast(), length) == 0 }
}

/// `rest` has the length of what is quoted in its upper half, and the flags of the device.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v4(skb: *mut __sk_buff, layout: u64, sum: u64, rest: u64) -> i32 {
    let layout = Layout::from_bits(layout);
    let (quoted, flags) = unpack(sum, rest);
    let message = V4 + layout.room;
    let Some(header) = Frame(skb).words(message + 8) else {
        return DROP;
    };
    let (ip, error) = unreachable_v4(&header, quoted, code(), layout);
    let is_written = store(skb, 0, &ip)
        && qfence_no_options_v4(skb, layout.room) != 0
        && store(skb, message, &error);
    send(skb, is_written, flags)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v6(skb: *mut __sk_buff, layout: u64, sum: u64, rest: u64) -> i32 {
    let layout = Layout::from_bits(layout);
    let (quoted, flags) = unpack(sum, rest);
    let message = V6 + layout.room;
    let Some(header) = Frame(skb).words(message + 8) else {
        return DROP;
    };
    let (ip, error) = unreachable_v6(&header, quoted, code(), layout);
    let is_written = store(skb, 0, &ip)
        && qfence_no_options_v6(skb, layout.room, Protocol::ICMPV6.0) != 0
        && store(skb, message, &error);
    send(skb, is_written, flags)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "halves of it")]
const fn unpack(sum: u64, rest: u64) -> (Quoted, u32) {
    let length = (rest >> 32) as u32;
    (Quoted { length, sum }, rest as u32)
}
