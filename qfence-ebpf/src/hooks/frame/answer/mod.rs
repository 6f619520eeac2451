//! Answers refused frames: the frame itself becomes the answer, and leaves by the device by which it came.

mod error;
mod reset;
pub(super) mod write;

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves, Payload, Protocol,
    frame::{
        ANSWER_PROHIBITED, ANSWER_UNREACHABLE,
        answer::Layout,
        control::is_echo_request,
        ethernet::{IPV6, Macs, is_group},
    },
    packet::Place,
    verdict::MANY,
};

pub(super) use self::error::code;
use self::{
    error::error,
    reset::{qfence_reset_v4, qfence_reset_v6},
};
use super::{
    DROP,
    plain::{OTHER, answer_plain},
};
use crate::{
    judge::of_address,
    maps::frame::DENY_FRAMES_WITH,
    subject::{
        frame::{ethertype, macs, place, source, word},
        left::left,
    },
};

/// The lengths of IP headers without options.
const V4: u32 = 20;
const V6: u32 = 40;

/// Answers a refused IP packet, if it may be answered. `is_complete` says that no checksum of the frame is left to a device.
/// Returns the return value of the hook.
#[inline(always)]
pub(super) fn answer(skb: *mut __sk_buff, payload: Payload, is_complete: bool, flags: u32) -> i32 {
    if !matches!(
        DENY_FRAMES_WITH.load(),
        ANSWER_PROHIBITED | ANSWER_UNREACHABLE
    ) {
        return DROP;
    }
    if is_complete {
        let answered = answer_plain(skb, payload, flags);
        if answered != OTHER {
            return answered;
        }
    }
    qfence_answer(skb, payload.bits(), flags)
}

/// Whether a packet that one machine sends to one may be answered. Nothing is that many receive, and nothing without a single
/// sender (RFC 1122, 3.2.2; RFC 4443, 2.4).
#[inline(always)]
pub(super) fn may_be_answered(macs: Macs, source: Halves) -> bool {
    !is_group(macs.to) && !source.is_unspecified() && !of_address(source).has(MANY)
}

/// Whether a packet other than of TCP is answered. Of ICMP only an echo request is: the others are errors, answers, or about
/// the network. `first` is the first word of the payload.
#[inline(always)]
pub(super) fn is_answered(is_v6: bool, protocol: u32, first: u32) -> bool {
    match Protocol(protocol) {
        Protocol::ICMP | Protocol::ICMPV6 => is_echo_request(is_v6, first >> 24),
        _ => true,
    }
}

/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_answer(skb: *mut __sk_buff, payload: u64, flags: u32) -> i32 {
    let payload = Payload::from_bits(payload);
    let is_v6 = ethertype(skb) == IPV6;
    let protocol = payload.protocol();
    let place = place(skb);
    if !place.is_known() || place.is_later_fragment() || !may_be_answered(macs(skb), source(skb)) {
        return DROP;
    }
    match protocol {
        Protocol::TCP if payload.resets_tcp() => DROP,
        Protocol::TCP if is_v6 => qfence_reset_v6(skb, place.bits(), flags),
        Protocol::TCP => qfence_reset_v4(skb, place.bits(), flags),
        _ if !is_answered(is_v6, protocol.0, word(skb, place.offset())) => DROP,
        _ => error(skb, is_v6, place, flags),
    }
}

/// Returns the layout of an answer to a packet whose IP header has `header` bytes without options; `None` if there is none. A
/// device writes a checksum that was left to it at the place where it was, so the payload of the answer begins where that
/// of the packet began.
#[inline(always)]
fn layout(skb: *mut __sk_buff, place: Place, header: u32) -> Option<Layout> {
    let left = left(skb);
    if left.is_some() && !left.is_of_payload(place) {
        return None;
    }
    Some(Layout {
        room: if left.is_some() {
            place.offset().saturating_sub(header)
        } else {
            0
        },
        is_partial: left.is_some(),
    })
}
