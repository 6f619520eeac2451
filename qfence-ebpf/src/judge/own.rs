//! Lets connections through that the policy denies, if they lead to a listener of the fence's own
//! ([`qfence_common::own`]).
//!
//! Such are the pairs that libslirp makes, and what rules for the set `self` allow.
//!
//! Between the check at connect() and the handshake, the listener can be closed, and a service of the host can take its
//! port. So it is looked up three times: at connect(), when the SYN leaves, and when the answer arrives. No service
//! accepts a connection before it has the answer to its answer. Later segments belong to the connection that was
//! accepted, whatever happens to its listener. For UDP there is no such answer: each datagram is checked when it leaves.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_addr},
    helpers::{bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockAddrContext,
};
use qfence_common::{
    Halves, LookupPath, Payload, Protocol, Verdict,
    event::OWN_LISTENER,
    own::{PAIR, SELF, is_listener_of_self, is_pair, is_receiver_of_self, may_reach_self},
    packet::{read_address, tcp_data},
    verdict,
};

use crate::{
    account::refuse::Rest,
    judge::policy,
    subject::{
        destination::socket,
        listener::{End, tcp_listener, udp_receiver},
        owner::{self, LetThrough},
        skb::{Skb, whole_socket},
        socket::{is_raw, local_address, local_port},
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
    verdict: u32,
) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let Rest { port, .. } = Rest::unpack(rest);
    let to = Halves { upper, lower };
    let Some(client) = owner::made(socket(&ctx)) else {
        return 0;
    };
    // The client comes first: most sockets have options, and then nothing is looked up.
    let loopback = loopback(&ctx, to);
    let may_pair = loopback.is_some() && is_pair(thread(), now_ns(), client, client);
    let may_be_self = Verdict::from_bits(verdict).has(verdict::SELF) && may_reach_self(client);
    if !may_pair && !may_be_self {
        return 0;
    }
    let address = loopback.unwrap_or(to);
    // No connection has this source, so only listeners are found.
    let from = End { address, port: 0 };
    let Some(listener) = tcp_listener(ctx.sock_addr.cast(), from, End { address, port }) else {
        return 0;
    };
    let flag = if may_pair && is_pair(thread(), now_ns(), listener, client) {
        PAIR
    } else if may_be_self && is_listener_of_self(listener) {
        SELF
    } else {
        return 0;
    };
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    if owner::note_own(socket(&ctx), cookie, flag, listener.ns) {
        flag
    } else {
        0
    }
}

/// Returns [`SELF`] if a datagram of a call, or connect(), that the policy denies is let through; otherwise 0. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_own_datagram(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
    verdict: u32,
) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let Rest { port, .. } = Rest::unpack(rest);
    let to = Halves { upper, lower };
    let local_port = local_port(socket(&ctx));
    let verdict = Verdict::from_bits(verdict);
    if !covers_datagram(verdict, LookupPath::Address, to, local_port) {
        return 0;
    }
    let address = loopback(&ctx, to).unwrap_or(to);
    let from = End {
        address,
        port: local_port,
    };
    let receiver = udp_receiver(ctx.sock_addr.cast(), from, End { address, port });
    if receiver.is_some_and(is_receiver_of_self) {
        SELF
    } else {
        0
    }
}

/// Whether a rule for `self` covers a datagram: its destination port, or (for an answer) the port of its socket.
#[inline(always)]
fn covers_datagram(denied: Verdict, path: LookupPath, to: Halves, local_port: u16) -> bool {
    denied.has(verdict::SELF)
        || local_port != 0
            && policy::verdict(path, to, Protocol::UDP, local_port).has(verdict::SELF)
}

/// The flag of a refused call in the record: [`OWN_LISTENER`] if a rule for `self` would allow it; otherwise 0. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_would_be_own(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let Rest { protocol, port, .. } = Rest::unpack(rest);
    if !owner::made(socket(&ctx)).is_some_and(may_reach_self) {
        return 0;
    }
    let to = Halves { upper, lower };
    let address = loopback(&ctx, to).unwrap_or(to);
    let from = End { address, port: 0 };
    let to = End { address, port };
    let is_own = if protocol == Protocol::UDP {
        udp_receiver(ctx.sock_addr.cast(), from, to).is_some_and(is_receiver_of_self)
    } else if protocol == Protocol::TCP || protocol == Protocol::MPTCP {
        tcp_listener(ctx.sock_addr.cast(), from, to).is_some_and(is_listener_of_self)
    } else {
        false
    };
    if is_own { OWN_LISTENER } else { 0 }
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
    let (source, destination) = ends(skb, payload);
    if leads_to_own(skb, &through, source, destination) {
        through.flags
    } else {
        0
    }
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
    let (source, destination) = ends(skb, payload);
    if udp_receiver(skb.cast(), source, destination).is_some_and(is_receiver_of_self) {
        SELF
    } else {
        0
    }
}

/// The source and the destination of a packet.
#[inline(always)]
fn ends(skb: *mut __sk_buff, payload: u64) -> (End, End) {
    let payload = Payload::from_bits(payload);
    let source = End {
        address: read_address(&Skb(skb), true),
        port: payload.source_port(),
    };
    let destination = End {
        address: read_address(&Skb(skb), false),
        port: payload.destination_port(),
    };
    (source, destination)
}

/// Whether the answer to a SYN may arrive: 0 or 1. It may not if the connection was let through to a listener of the
/// fence's own, and the answer is from another one. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_may_accept(skb: *mut __sk_buff, payload: u64) -> u32 {
    let Some(through) = let_through(skb) else {
        return 1;
    };
    let (server, client) = ends(skb, payload);
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

/// Whether the listener of a connection that was let through is the one for which it was, or by a rule for `self` another
/// one of the fence.
#[inline(always)]
fn leads_to_own(skb: *mut __sk_buff, through: &LetThrough, client: End, server: End) -> bool {
    let Some(listener) = tcp_listener(skb.cast(), client, server) else {
        return false;
    };
    if through.flags & PAIR != 0 {
        listener.ns == through.listener_ns
    } else {
        is_listener_of_self(listener)
    }
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
