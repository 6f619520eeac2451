//! Packets to a listener of the fence's own, and its answers.

use aya_ebpf::bindings::__sk_buff;
use qfence_common::{
    Halves, LookupPath, Payload, Verdict,
    own::{Made, PAIR, SELF, is_listener_of_self, is_receiver_of_self},
    packet::tcp_data,
    verdict,
};

use super::covers_datagram;
use crate::subject::{
    listener::{Tuple, answering_listener, tcp_listener, udp_receiver},
    owner::{self, LetThrough},
    skb::{Skb, whole_socket},
    socket::{is_raw, local_port},
};

/// Returns the flag by which a SYN that the policy denies is let through: its connection was, its listener is still there,
/// and if it was by a rule for `self`, the policy still has one. Otherwise 0. A SYN with data (TCP fast open) is dropped,
/// because a listener accepts it at once; the client then sends one without. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_own_syn(skb: *mut __sk_buff, payload: u64, verdict: u32) -> u32 {
    let Some(through) = let_through(skb) else {
        return 0;
    };
    if through.flags & PAIR == 0 && !Verdict::from_bits(verdict).has(verdict::SELF) {
        return 0;
    }
    // SAFETY: the hook's own packet; the verifier checks each access.
    let length = unsafe { (*skb).len };
    if tcp_data(&Skb(skb), length) != Some(0) {
        return 0;
    }
    if qfence_leads_to_own(skb, payload, through.expected()) != 0 {
        through.flags
    } else {
        0
    }
}

/// Whether the listener of a SYN is the one for which its connection was let through, if that was made at `expected`,
/// which is not 0, or by a rule for `self` another one of the fence: 0 or 1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_leads_to_own(skb: *mut __sk_buff, payload: u64, expected: u64) -> u32 {
    let payload = Payload::from_bits(payload);
    let (client, server) = (payload.source_port(), payload.destination_port());
    Tuple::of_packet(skb, client, server, false)
        .and_then(|tuple| tcp_listener(skb.cast(), tuple))
        .is_some_and(|listener| is_expected(listener, expected))
        .into()
}

/// The same of the listener that has answered a SYN, and has a request for the connection.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_comes_from_own(skb: *mut __sk_buff, payload: u64, expected: u64) -> u32 {
    let payload = Payload::from_bits(payload);
    let (server, client) = (payload.source_port(), payload.destination_port());
    Tuple::of_packet(skb, client, server, true)
        .and_then(|tuple| answering_listener(skb, tuple))
        .is_some_and(|listener| is_expected(listener, expected))
        .into()
}

/// Whether it is the listener made at `expected`, or if that is 0, any one of the fence. The options of a listener can change
/// after connect(): one that may share its port is none of these.
#[inline(always)]
fn is_expected(listener: Made, expected: u64) -> bool {
    is_listener_of_self(listener) && (expected == 0 || listener.ns == expected)
}

/// Returns [`SELF`] if a datagram that the policy denies is let through; otherwise 0. `upper` and `lower` are its
/// destination. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_own_packet(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
    verdict: u32,
) -> u32 {
    // The port of the socket: a raw socket sends from any.
    if is_raw(whole_socket(skb)) {
        return 0;
    }
    let local_port = local_port(whole_socket(skb));
    let to = Halves { upper, lower };
    let verdict = Verdict::from_bits(verdict);
    if !covers_datagram(verdict, LookupPath::Loopback, to, local_port) {
        return 0;
    }
    if qfence_packet_is_received(skb, payload) != 0 {
        SELF
    } else {
        0
    }
}

/// Whether a rule for `self` covers the UDP socket that would receive a packet: 0 or 1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_packet_is_received(skb: *mut __sk_buff, payload: u64) -> u32 {
    let payload = Payload::from_bits(payload);
    let (from, to) = (payload.source_port(), payload.destination_port());
    Tuple::of_packet(skb, from, to, false)
        .and_then(|tuple| udp_receiver(skb.cast(), tuple))
        .is_some_and(is_receiver_of_self)
        .into()
}

/// Whether the answer to a SYN may arrive: 0 or 1. It may not if the connection was let through to a listener of the
/// fence's own, and the answer is from another one. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_may_accept(skb: *mut __sk_buff, payload: u64) -> u32 {
    let Some(through) = let_through(skb) else {
        return 1;
    };
    qfence_comes_from_own(skb, payload, through.expected())
}

#[inline(always)]
fn let_through(skb: *mut __sk_buff) -> Option<LetThrough> {
    let socket = whole_socket(skb);
    if socket.is_null() {
        return None;
    }
    owner::let_through(socket)
}
