//! Segments of TCP connections that exist: whether a packet that opens no connection is judged nevertheless.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use qfence_common::{Action, Halves, Payload, Verdict, own::SELF};

use super::{egress::destination, is_loopback};
use crate::{
    judge::{
        is_own_loopback,
        policy::{judges_standing, verdict},
    },
    maps::ALLOW_RAW,
    subject::{
        destination::Destination,
        skb::whole_socket,
        socket::{has_connected_elsewhere, is_of_own_connection, is_raw, let_through},
    },
};

/// Whether a TCP segment that opens no connection leaves without being judged: 0 or 1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_carries_on(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u32 {
    let (ctx, payload) = (SkBuffContext::new(skb), Payload::from_bits(payload));
    let to = destination(&ctx, Halves { upper, lower }, payload);
    let is_judged = is_ours_to_judge(&ctx) || carries_on_what_is_denied(&ctx, payload, &to);
    (!is_judged).into()
}

/// Whether a packet belongs to a connection that the fence opened, and not to a pair: [`NOT_OPENED`], [`OPENED`], or
/// [`OPENED_BY_SELF`] if a rule for `self` let it through. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_opened(skb: *mut __sk_buff) -> u32 {
    if !is_of_own_connection(whole_socket(skb)) {
        return NOT_OPENED;
    }
    match let_through(whole_socket(skb)) {
        0 => OPENED,
        SELF => OPENED_BY_SELF,
        _ => NOT_OPENED,
    }
}

const NOT_OPENED: u32 = 0;
const OPENED: u32 = 1;
const OPENED_BY_SELF: u32 = 2;

/// Whether this verdict denies the further segments of such a connection.
#[inline(always)]
fn ends(opened: u32, verdict: Verdict) -> bool {
    match opened {
        NOT_OPENED => false,
        OPENED_BY_SELF if verdict.self_rule().is_some() => false,
        _ => verdict.action() == Action::Deny,
    }
}

/// Whether a TCP segment that opens no connection is judged nevertheless. There are two such segments: one from a raw
/// socket, and one of an outgoing connection whose remote address has become local since. If the connection was allowed
/// although it was to the host, its segments are not judged.
#[inline(always)]
fn is_ours_to_judge(ctx: &SkBuffContext) -> bool {
    // The socket is looked up for each condition: the verifier of Linux 6.1 cannot track one pointer through all of
    // them.
    (ALLOW_RAW.load() != 0 && is_raw(whole_socket(ctx.skb.skb)))
        || (is_loopback(ctx) && has_connected_elsewhere(whole_socket(ctx.skb.skb)))
}

/// Whether a TCP segment that opens no connection belongs to an existing connection of the fence that a change of the
/// policy denies. A segment that resets the connection is excepted, so that the remote end learns of its end. If the
/// segment is allowed, that is not counted as a decision of a rule.
#[inline(always)]
fn carries_on_what_is_denied(ctx: &SkBuffContext, payload: Payload, to: &Destination) -> bool {
    if !judges_standing() || payload.resets_tcp() {
        return false;
    }
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    ends(qfence_opened(ctx.skb.skb), verdict)
        && !is_own_loopback(to, verdict, false, || whole_socket(ctx.skb.skb))
}
