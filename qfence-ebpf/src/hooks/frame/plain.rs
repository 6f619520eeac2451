//! Answers packets as most are: without options, extension headers, fragments, or a checksum that is left to a device. They are
//! read in place, and the answer is written at once.

use core::ptr::from_ref;

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves, Payload, Protocol,
    frame::{
        answer::{Layout, Quoted, reset_v4, reset_v6, sum, unreachable_v4, unreachable_v6},
        ethernet::{HEADER, IPV4, IPV6, Macs},
    },
};

use super::{
    DROP,
    answer::{code, is_answered, may_be_answered, resize, send, write_bytes},
};
use crate::subject::frame::{ethertype, in_place, macs_in_place};

/// No return value of a hook: the packet is another one.
pub(super) const OTHER: i32 = i32::MAX;

/// Where the payload of an answer begins: behind the IP header.
const NO_ROOM: Layout = Layout {
    room: 0,
    is_partial: false,
};

/// A frame that is an answer.
#[repr(C)]
struct Answer<const N: usize> {
    /// Aligns the packet.
    padding: u16,
    macs: [u16; 6],
    ethertype: u16,
    packet: [u32; N],
}

/// Answers a refused packet. Returns the return value of the hook, or [`OTHER`].
#[inline(always)]
pub(super) fn answer_plain(skb: *mut __sk_buff, payload: Payload, flags: u32) -> i32 {
    let protocol = payload.protocol();
    match (ethertype(skb) == IPV6, protocol == Protocol::TCP) {
        _ if payload.resets_tcp() => DROP,
        (false, true) => qfence_reset_plain_v4(skb, flags),
        (true, true) => qfence_reset_plain_v6(skb, flags),
        (false, false) => qfence_unreachable_plain_v4(skb, protocol.0, flags),
        (true, false) => qfence_unreachable_plain_v6(skb, protocol.0, flags),
    }
}

// The functions below are global for the sake of the verifier (see `judge/policy.rs`).

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reset_plain_v4(skb: *mut __sk_buff, flags: u32) -> i32 {
    let Some([a, b, c, d, e, segment @ ..]) = in_place::<10>(skb) else {
        return OTHER;
    };
    if !is_plain_v4(a, b) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    if !may_be_answered(macs, Halves::from_v4(d)) {
        return DROP;
    }
    let (ip, reset) = reset_v4(&[a, b, c, d, e], &segment, NO_ROOM);
    answer::<10>(skb, (macs, IPV4), (&ip, &reset, &[]), flags)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reset_plain_v6(skb: *mut __sk_buff, flags: u32) -> i32 {
    let Some(words) = in_place::<15>(skb) else {
        return OTHER;
    };
    if !is_plain_v6(words[1], Protocol::TCP.0) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    let [a, b, c, d, e, f, g, h, i, j, segment @ ..] = words;
    if !may_be_answered(macs, Halves::from_v6([c, d, e, f])) {
        return DROP;
    }
    let (ip, reset) = reset_v6(&[a, b, c, d, e, f, g, h, i, j], &segment, 40, NO_ROOM);
    answer::<15>(skb, (macs, IPV6), (&ip, &reset, &[]), flags)
}

/// `protocol` is the number of the packet's protocol.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_plain_v4(skb: *mut __sk_buff, protocol: u32, flags: u32) -> i32 {
    // The header, and the eight bytes that are quoted behind it.
    let Some(words) = in_place::<7>(skb) else {
        return OTHER;
    };
    let [a, b, c, d, e, kind, _] = words;
    if !is_plain_v4(a, b) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    if !is_answered(false, protocol, kind) || !may_be_answered(macs, Halves::from_v4(d)) {
        return DROP;
    }
    let quoted = Quoted {
        length: 28,
        sum: sum(&words),
    };
    let (ip, error) = unreachable_v4(&[a, b, c, d, e], quoted, code(), NO_ROOM);
    answer::<14>(skb, (macs, IPV4), (&ip, &error, &words), flags)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_plain_v6(skb: *mut __sk_buff, protocol: u32, flags: u32) -> i32 {
    let Some(words) = in_place::<12>(skb) else {
        return OTHER;
    };
    if !is_plain_v6(words[1], protocol) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    let [a, b, c, d, e, f, g, h, i, j, kind, _] = words;
    let source = Halves::from_v6([c, d, e, f]);
    if !is_answered(true, protocol, kind) || !may_be_answered(macs, source) {
        return DROP;
    }
    let quoted = Quoted {
        length: 48,
        sum: sum(&words),
    };
    let (ip, error) = unreachable_v6(&[a, b, c, d, e, f, g, h, i, j], quoted, code(), NO_ROOM);
    answer::<24>(skb, (macs, IPV6), (&ip, &error, &words), flags)
}

/// Whether a packet has neither options nor is a fragment, by the first two words of its header.
#[inline(always)]
const fn is_plain_v4(first: u32, second: u32) -> bool {
    first >> 24 == 0x45 && second & 0x3fff == 0
}

/// Whether the payload of a packet follows its header directly, by the second word of the header.
#[inline(always)]
const fn is_plain_v6(second: u32, protocol: u32) -> bool {
    second >> 8 & 0xff == protocol
}

/// Makes the frame an answer, and sends it. The answer has the MAC addresses of the frame in the other direction and this
/// ethertype, and these three parts of `N` words together.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "parts of it")]
fn answer<const N: usize>(
    skb: *mut __sk_buff,
    (macs, kind): (Macs, u32),
    (header, message, quoted): (&[u32], &[u32], &[u32]),
    flags: u32,
) -> i32 {
    let [a, b, c] = macs.answer();
    let halves = [a >> 16, a, b >> 16, b, c >> 16, c];
    let mut frame = Answer {
        padding: 0,
        macs: halves.map(|half| (half as u16).to_be()),
        ethertype: (kind as u16).to_be(),
        packet: [0; N],
    };
    // Written in place: a second copy of the packet would take more of the stack than there is.
    let words = header.iter().chain(message).chain(quoted);
    for (place, word) in frame.packet.iter_mut().zip(words) {
        *place = word.to_be();
    }
    let length = size_of_val(&frame.packet) as u32;
    // SAFETY: within the frame.
    let bytes = unsafe { from_ref(&frame).cast::<u8>().add(size_of::<u16>()) };
    // The frame has as many bytes behind the padding.
    let is_written = resize(skb, length) && write_bytes(skb, 0, bytes, HEADER + length);
    send(skb, is_written, flags)
}
