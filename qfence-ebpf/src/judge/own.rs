//! Lets connections through that the policy denies, if they lead to a listener of the fence's own
//! ([`qfence_common::own`]).
//!
//! Between the check at connect() and the handshake, the listener can be closed, and a service of the host can take its
//! port. So it is looked up three times: at connect(), when the SYN leaves, and when the answer arrives. No service
//! accepts a connection before it has the answer to its answer. Later segments belong to the connection that was
//! accepted, whatever happens to its listener.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_addr},
    helpers::{bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockAddrContext,
};
use qfence_common::{
    Halves, Payload,
    own::{PAIR, is_pair},
    packet::{read_address, tcp_data},
};

use crate::{
    account::refuse::Rest,
    subject::{
        destination::socket,
        listener::{End, tcp_listener},
        owner::{self, LetThrough},
        skb::{Skb, whole_socket},
        socket::local_address,
    },
};

/// 127.0.0.0/8, as the upper byte of an IPv4 address; `::1`; and `0.0.0.0` and `::`, by which Linux connects to them.
const LOOPBACK_V4: u64 = 127;
const LOOPBACK_V6: u64 = 1;
const LOCALHOST_V4: Halves = Halves::from_v4(0x7f00_0001);
const LOCALHOST_V6: Halves = Halves {
    upper: 0,
    lower: LOOPBACK_V6,
};

/// Returns the flag by which a TCP connection that the policy denies is let through, and notes it; 0 if it is refused.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_own_connection(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let Rest { port, .. } = Rest::unpack(rest);
    let Some(address) = loopback(&ctx, Halves { upper, lower }) else {
        return 0;
    };
    let Some(client) = owner::made(socket(&ctx)) else {
        return 0;
    };
    // The client comes first: most sockets have options, and then nothing is looked up.
    if !is_pair(thread(), now_ns(), client, client) {
        return 0;
    }
    // No connection has this source, so only listeners are found.
    let from = End { address, port: 0 };
    let Some(listener) = tcp_listener(ctx.sock_addr.cast(), from, End { address, port }) else {
        return 0;
    };
    if !is_pair(thread(), now_ns(), listener, client) {
        return 0;
    }
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    if owner::note_own(socket(&ctx), cookie, PAIR, listener.ns) {
        PAIR
    } else {
        0
    }
}

/// Returns the loopback address to which a connection to this one leads; `None` for other addresses.
#[inline(always)]
fn loopback(ctx: &SockAddrContext, address: Halves) -> Option<Halves> {
    if address == LOCALHOST_V6 || address.is_v4() && address.lower >> 24 & 0xff == LOOPBACK_V4 {
        return Some(address);
    }
    let is_v4 = address == Halves::from_v4(0);
    if !is_v4 && address != Halves::NONE {
        return None;
    }
    // The kernel takes the address to which the socket is bound (`ip_route_output_key_hash_rcu` in net/ipv4/route.c,
    // `tcp_v6_connect` in net/ipv6/tcp_ipv6.c takes `::1`).
    let bound = local_address(socket(ctx));
    if is_v4 && bound.is_v4() && bound != Halves::from_v4(0) {
        return Some(bound);
    }
    Some(if is_v4 { LOCALHOST_V4 } else { LOCALHOST_V6 })
}

/// Whether a SYN that the policy denies belongs to a connection that was let through, and whether its listener is still
/// there: 0 or 1. A SYN with data (TCP fast open) is dropped, because a listener accepts it at once; the client then
/// sends one without. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_is_own_syn(skb: *mut __sk_buff, payload: u64) -> u32 {
    let Some(through) = let_through(skb) else {
        return 0;
    };
    // SAFETY: the hook's own packet; the verifier checks each access.
    let length = unsafe { (*skb).len };
    if tcp_data(&Skb(skb), length) != Some(0) {
        return 0;
    }
    let payload = Payload::from_bits(payload);
    let source = End {
        address: read_address(&Skb(skb), true),
        port: payload.source_port(),
    };
    let destination = End {
        address: read_address(&Skb(skb), false),
        port: payload.destination_port(),
    };
    leads_to_own(skb, &through, source, destination).into()
}

/// Whether the answer to a SYN may arrive: 0 or 1. It may not if the connection was let through to a listener of the
/// fence's own, and the answer is from another one. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_may_accept(skb: *mut __sk_buff, payload: u64) -> u32 {
    let Some(through) = let_through(skb) else {
        return 1;
    };
    let payload = Payload::from_bits(payload);
    let client = End {
        address: read_address(&Skb(skb), false),
        port: payload.destination_port(),
    };
    let server = End {
        address: read_address(&Skb(skb), true),
        port: payload.source_port(),
    };
    leads_to_own(skb, &through, client, server).into()
}

#[inline(always)]
fn let_through(skb: *mut __sk_buff) -> Option<LetThrough> {
    let socket = whole_socket(skb);
    if socket.is_null() {
        return None;
    }
    owner::let_through(socket)
}

/// Whether the listener of a connection that was let through is the one for which it was.
#[inline(always)]
fn leads_to_own(skb: *mut __sk_buff, through: &LetThrough, client: End, server: End) -> bool {
    let Some(listener) = tcp_listener(skb.cast(), client, server) else {
        return false;
    };
    through.flags & PAIR != 0 && listener.ns == through.listener_ns
}

/// The current thread.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is the thread"
)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Returns the time since boot in nanoseconds, suspend included.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
