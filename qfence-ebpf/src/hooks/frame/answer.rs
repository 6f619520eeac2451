//! Answers refused frames: the frame itself becomes the answer, and leaves by the device by which it came.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM},
    helpers::{bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes},
};
use qfence_common::{
    Payload, Protocol,
    frame::{
        ANSWER_PROHIBITED, ANSWER_UNREACHABLE, REVERSED,
        answer::{
            PORT, PROHIBITED, Unreachable, reset_v4, reset_v6, unreachable_v4, unreachable_v6,
        },
        control::is_echo_request,
        ethernet::{HEADER, IPV6, Macs, is_group},
    },
    packet::{Bytes as _, Place, read_address},
    verdict::MANY,
};

use super::DROP;
use crate::{
    judge::of_address,
    maps::frame::DENY_FRAMES_WITH,
    subject::{
        frame::{Frame, device_index, ethertype, macs, place, word},
        left::left,
    },
};

/// Answers a refused IP packet, if it may be answered. Returns the return value of the hook. Nothing that is an error
/// itself is answered, nothing that many receive, and nothing without a single sender (RFC 1122, 3.2.2; RFC 4443, 2.4).
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff, payload: Payload, flags: u32) -> i32 {
    if !matches!(
        DENY_FRAMES_WITH.load(),
        ANSWER_PROHIBITED | ANSWER_UNREACHABLE
    ) {
        return DROP;
    }
    qfence_answer(skb, payload.bits(), flags)
}

/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_answer(skb: *mut __sk_buff, payload: u64, flags: u32) -> i32 {
    let payload = Payload::from_bits(payload);
    let is_v6 = ethertype(skb) == IPV6;
    let protocol = payload.protocol();
    let place = place(skb);
    if is_group(macs(skb).to) || !place.is_known() || place.is_later_fragment() {
        return DROP;
    }
    // The device would write the checksum into the answer, at the place where it was.
    let left = left(skb);
    if left.is_some() && (!left.is_of_payload(place) || place.has_more_headers()) {
        return DROP;
    }
    let source = read_address(&Frame(skb), true);
    if source.is_unspecified() || of_address(source).has(MANY) {
        return DROP;
    }
    match protocol {
        Protocol::TCP if payload.resets_tcp() => DROP,
        Protocol::TCP if is_v6 => qfence_reset_v6(skb, place.bits(), flags),
        Protocol::TCP => qfence_reset_v4(skb, place.bits(), flags),
        // The others are errors, answers, or about the network.
        Protocol::ICMP | Protocol::ICMPV6
            if !is_echo_request(is_v6, word(skb, place.offset()) >> 24) =>
        {
            DROP
        }
        // The answer would have to quote options and extension headers, whose length is not known to the verifier.
        _ if place.has_more_headers() => DROP,
        _ if is_v6 => qfence_unreachable_v6(skb, flags),
        _ => qfence_unreachable_v4(skb, flags),
    }
}

/// The code of an ICMP error.
#[inline(always)]
fn code() -> Unreachable {
    if DENY_FRAMES_WITH.load() == ANSWER_UNREACHABLE {
        PORT
    } else {
        PROHIBITED
    }
}

// The functions below are global for the sake of the verifier (see `judge/policy.rs`).

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reset_v4(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
    let place = Place::from_bits(place);
    let packet = Frame(skb);
    // One after the other: before Linux 6.4 the verifier takes a failed first read for possible after the second one.
    let Some(header) = packet.words(0) else {
        return DROP;
    };
    let Some(segment) = packet.words(place.offset()) else {
        return DROP;
    };
    reply(
        skb,
        &reset_v4(&header, &segment, left(skb).is_some()),
        flags,
    )
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reset_v6(skb: *mut __sk_buff, place: u64, flags: u32) -> i32 {
    let place = Place::from_bits(place);
    let packet = Frame(skb);
    let Some(header) = packet.words(0) else {
        return DROP;
    };
    let Some(segment) = packet.words(place.offset()) else {
        return DROP;
    };
    reply(
        skb,
        &reset_v6(&header, &segment, place.offset(), left(skb).is_some()),
        flags,
    )
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v4(skb: *mut __sk_buff, flags: u32) -> i32 {
    let packet = Frame(skb);
    let Some(header) = packet.words(0) else {
        return DROP;
    };
    let Some(begins) = packet.words(20) else {
        return DROP;
    };
    reply(skb, &unreachable_v4(&header, &begins, code()), flags)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unreachable_v6(skb: *mut __sk_buff, flags: u32) -> i32 {
    let packet = Frame(skb);
    let Some(header) = packet.words(0) else {
        return DROP;
    };
    let Some(begins) = packet.words(40) else {
        return DROP;
    };
    reply(
        skb,
        &unreachable_v6(&header, &begins, code(), left(skb).is_some()),
        flags,
    )
}

/// Turns the frame into this packet for its sender, and sends it there.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a hundred bytes, and a value of the hook"
)]
fn reply<const N: usize>(skb: *mut __sk_buff, packet: &[u32; N], flags: u32) -> i32 {
    let packet = packet.map(u32::to_be);
    let addresses: [u32; 3] = Macs::answer(macs(skb)).map(u32::to_be);
    let length = HEADER + size_of::<[u32; N]>() as u32;
    // It also makes the bytes writable, and ends what was divided into segments.
    // SAFETY: the hook's own context.
    if unsafe { bpf_skb_change_tail(skb, length, 0) } != 0 {
        return DROP;
    }
    if !store(skb, 0, &addresses) || !store(skb, HEADER, &packet) {
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

/// Writes words into a frame. Returns false if the kernel does not do it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a hundred bytes")]
fn store<const N: usize>(skb: *mut __sk_buff, offset: u32, words: &[u32; N]) -> bool {
    let length = size_of::<[u32; N]>() as u32;
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: the array has `length` bytes.
    unsafe { bpf_skb_store_bytes(skb, offset, words.as_ptr().cast(), length, flags) == 0 }
}
