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
    packet::Bytes as _,
};

use super::{
    DROP,
    answer::{
        code, is_answered, may_be_answered,
        write::{resize, send, write_bytes},
    },
};
use crate::subject::frame::{Frame, ethertype, in_place, macs_in_place};

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
    answer::<10, 5, 5, 0>(skb, (macs, IPV4), (&ip, &reset, &[]), flags)
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
    answer::<15, 10, 5, 0>(skb, (macs, IPV6), (&ip, &reset, &[]), flags)
}

/// `protocol` is the number of the packet's protocol.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_plain_v4(skb: *mut __sk_buff, protocol: u32, flags: u32) -> i32 {
    let Some([first, second, _, source, _, kind]) = in_place(skb) else {
        return OTHER;
    };
    if !is_plain_v4(first, second) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    if !is_answered(false, protocol, kind) || !may_be_answered(macs, Halves::from_v4(source)) {
        return DROP;
    }
    // The header, and the eight bytes that are quoted behind it. They are not copied twice, for the sake of the stack.
    let packet = Frame(skb);
    let Some(quoted) = packet.linear::<7>() else {
        return OTHER;
    };
    let [a, b, c, d, e, _, _] = quoted.map(u32::from_be);
    let (ip, error) = unreachable_v4(&[a, b, c, d, e], whole(quoted), code(), NO_ROOM);
    answer::<14, 5, 2, 7>(skb, (macs, IPV4), (&ip, &error, quoted), flags)
}

/// As above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_plain_v6(skb: *mut __sk_buff, protocol: u32, flags: u32) -> i32 {
    let Some([_, second, a, b, c, d, _, _, _, _, kind]) = in_place(skb) else {
        return OTHER;
    };
    if !is_plain_v6(second, protocol) {
        return OTHER;
    }
    let Some(macs) = macs_in_place(skb) else {
        return OTHER;
    };
    let source = Halves::from_v6([a, b, c, d]);
    if !is_answered(true, protocol, kind) || !may_be_answered(macs, source) {
        return DROP;
    }
    let packet = Frame(skb);
    let Some(quoted) = packet.linear::<12>() else {
        return OTHER;
    };
    let [a, b, c, d, e, f, g, h, i, j, _, _] = quoted.map(u32::from_be);
    let header = [a, b, c, d, e, f, g, h, i, j];
    let (ip, error) = unreachable_v6(&header, whole(quoted), code(), NO_ROOM);
    answer::<24, 10, 2, 12>(skb, (macs, IPV6), (&ip, &error, quoted), flags)
}

/// What is quoted if these words are, which are in network order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "fifty bytes")]
fn whole<const N: usize>(words: &[u32; N]) -> Quoted {
    Quoted {
        length: size_of_val(words) as u32,
        sum: sum(&words.map(u32::from_be)),
    }
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
/// ethertype, and these three parts of `N` words together, of which the last is in network order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "parts of it")]
fn answer<const N: usize, const A: usize, const B: usize, const C: usize>(
    skb: *mut __sk_buff,
    (macs, kind): (Macs, u32),
    (header, message, quoted): (&[u32; A], &[u32; B], &[u32; C]),
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
    // Written in place: a second copy of the packet would take more of the stack than Linux 6.1 has.
    put(&mut frame.packet, 0, header, u32::to_be);
    put(&mut frame.packet, A, message, u32::to_be);
    put(&mut frame.packet, A + B, quoted, |word| word);
    let length = size_of_val(&frame.packet) as u32;
    // SAFETY: within the frame.
    let bytes = unsafe { from_ref(&frame).cast::<u8>().add(size_of::<u16>()) };
    // The frame has as many bytes behind the padding.
    let is_written = resize(skb, length) && write_bytes(skb, 0, bytes, HEADER + length);
    send(skb, is_written, flags)
}

/// Writes words into a packet, from the word `at` on, each converted.
#[inline(always)]
fn put<const N: usize, const M: usize>(
    packet: &mut [u32; N],
    at: usize,
    words: &[u32; M],
    convert: impl Fn(u32) -> u32,
) {
    let mut offset = 0;
    while offset < M {
        if let Some(place) = packet.get_mut(at + offset) {
            *place = convert(words[offset]);
        }
        offset += 1;
    }
}
