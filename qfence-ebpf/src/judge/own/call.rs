//! Calls to a listener of the fence's own.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockAddrContext,
};
use qfence_common::{
    Halves, LookupPath, Protocol, Verdict,
    event::OWN_LISTENER,
    own::{
        Made, PAIR, SELF, is_listener_of_self, is_pair, is_receiver_of_self, is_untouched_of,
        may_reach_self,
    },
    verdict,
};

use super::covers_datagram;
use crate::{
    account::refuse::Rest,
    subject::{
        destination::socket,
        listener::{Tuple, tcp_listener, udp_receiver},
        owner::{self, LetThrough},
        socket::{local_address, local_port},
    },
};

/// 127.0.0.0/8, as the upper byte of an IPv4 address; `::1`; and `0.0.0.0` and `::`, by which Linux connects to them.
const LOOPBACK_V4: u64 = 127;
const LOOPBACK_V6: u64 = 1;
const LOCALHOST_V4: u32 = 0x7f00_0001;
const LOCALHOST_V6: Halves = Halves {
    upper: 0,
    lower: LOOPBACK_V6,
};

/// fe80::/10, as the upper bits of an address.
const LINK_LOCAL: u64 = 0xfe80 >> 6;
const LINK_LOCAL_SHIFT: u32 = 54;

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
    let Rest { port, .. } = Rest::unpack(rest);
    let Some(client) = owner::made(socket(&SockAddrContext::new(ctx))) else {
        return 0;
    };
    // The client comes first: most sockets have options, and then nothing is looked up.
    let may_pair = leads_to_loopback(Halves { upper, lower }) && is_untouched_of(thread(), client);
    let may_be_self = Verdict::from_bits(verdict).has(verdict::SELF) && may_reach_self(client);
    if !may_pair && !may_be_self {
        return 0;
    }
    let client_ns = if may_pair { client.ns } else { 0 };
    let listener = Listener(qfence_listener(ctx, upper, lower, port.into(), client_ns));
    let is_through = listener.is_pair() || listener.is_self() && may_be_self;
    if !is_through {
        return 0;
    }
    if qfence_note_connection(ctx, 1, listener.0) == 0 {
        return 0;
    }
    listener.flag()
}

/// A listener of the fence's own, in one word: the flag by which a connection to it is let through, in the two upper bits,
/// and the time at which it was made, in nanoseconds since boot. Zero if there is none.
#[derive(Clone, Copy)]
struct Listener(u64);

impl Listener {
    const FLAG_SHIFT: u32 = 62;
    const IS_PAIR: u64 = 1 << Self::FLAG_SHIFT;
    const IS_SELF: u64 = 2 << Self::FLAG_SHIFT;

    #[inline(always)]
    const fn is_pair(self) -> bool {
        self.0 & Self::IS_PAIR != 0
    }

    #[inline(always)]
    const fn is_self(self) -> bool {
        self.0 & Self::IS_SELF != 0
    }

    /// [`PAIR`], [`SELF`] or 0.
    #[inline(always)]
    const fn flag(self) -> u32 {
        (self.0 >> Self::FLAG_SHIFT) as u32 * PAIR
    }

    #[inline(always)]
    const fn made_ns(self) -> u64 {
        self.0 & (Self::IS_PAIR - 1)
    }
}

const _: () = assert!(SELF == 2 * PAIR);

/// Looks up the TCP listener for a call to an address and a port. Returns a [`Listener`]. It is that of a pair only if its
/// client can be one that this thread made without options at `client_ns`, which is not 0. None is found at a link-local
/// address of IPv6. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_listener(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    port: u32,
    client_ns: u64,
) -> u64 {
    // Its request would not be found (`answering_listener`).
    if upper >> LINK_LOCAL_SHIFT == LINK_LOCAL {
        return 0;
    }
    let address = destination(ctx, Halves { upper, lower });
    let port = u16::try_from(port).unwrap_or(0);
    // No connection has the source port 0, so only listeners are found.
    let Some(listener) = tcp_listener(ctx.cast(), Tuple::within(address, 0, port)) else {
        return 0;
    };
    let thread = thread();
    let client = Made {
        tid: thread,
        flags: 0,
        ns: client_ns,
    };
    let ns = listener.ns & (Listener::IS_PAIR - 1);
    if client_ns != 0 && is_pair(thread, now_ns(), listener, client) {
        Listener::IS_PAIR | ns
    } else if is_listener_of_self(listener) {
        Listener::IS_SELF | ns
    } else {
        0
    }
}

/// Notes whether a connection is to the host, and the [`Listener`] of the fence's own to which it was let through.
/// Returns 1 if that was noted, otherwise 0. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_note_connection(
    ctx: *mut bpf_sock_addr,
    to_host: u32,
    listener: u64,
) -> u32 {
    let listener = Listener(listener);
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let through = LetThrough {
        flags: listener.flag(),
        listener_ns: listener.made_ns(),
    };
    let socket = socket(&SockAddrContext::new(ctx));
    owner::note_connection(socket, cookie, to_host != 0, &through).into()
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
    let Rest { port, .. } = Rest::unpack(rest);
    let local_port = local_port(socket(&SockAddrContext::new(ctx)));
    let verdict = Verdict::from_bits(verdict);
    let to = Halves { upper, lower };
    if !covers_datagram(verdict, LookupPath::Address, to, local_port) {
        return 0;
    }
    if qfence_receives(ctx, upper, lower, port.into(), local_port.into()) != 0 {
        SELF
    } else {
        0
    }
}

/// Whether a rule for `self` covers the UDP socket that would receive a datagram of a call: 0 or 1. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_receives(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    port: u32,
    local_port: u32,
) -> u32 {
    let address = destination(ctx, Halves { upper, lower });
    let [from, to] = [local_port, port].map(|port| u16::try_from(port).unwrap_or(0));
    let receiver = udp_receiver(ctx.cast(), Tuple::within(address, from, to));
    receiver.is_some_and(is_receiver_of_self).into()
}

/// The flag of a refused connect() in the record: [`OWN_LISTENER`] if a rule for `self` would allow it; otherwise 0. Global:
/// see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_would_connect(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u32 {
    let Rest { protocol, port, .. } = Rest::unpack(rest);
    if protocol == Protocol::UDP {
        return qfence_would_send(ctx, upper, lower, rest);
    }
    let is_tcp = protocol == Protocol::TCP || protocol == Protocol::MPTCP;
    if is_tcp && may_reach(ctx) && qfence_listener(ctx, upper, lower, port.into(), 0) != 0 {
        OWN_LISTENER
    } else {
        0
    }
}

/// The same for a call that sends a datagram.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn qfence_would_send(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u32 {
    let Rest { protocol, port, .. } = Rest::unpack(rest);
    let is_udp = protocol == Protocol::UDP;
    if is_udp && may_reach(ctx) && qfence_receives(ctx, upper, lower, port.into(), 0) != 0 {
        OWN_LISTENER
    } else {
        0
    }
}

/// Whether a rule for `self` would cover what the socket of a call sends.
#[inline(always)]
fn may_reach(ctx: *mut bpf_sock_addr) -> bool {
    owner::made(socket(&SockAddrContext::new(ctx))).is_some_and(may_reach_self)
}

/// Whether a connection to this address leads to a loopback address.
#[inline(always)]
fn leads_to_loopback(address: Halves) -> bool {
    address == LOCALHOST_V6
        || address == Halves::NONE
        || address.is_v4()
            && (address.lower >> 24 & 0xff == LOOPBACK_V4 || address == Halves::from_v4(0))
}

/// Returns the address to which a call leads: Linux connects to a loopback address by the unspecified one.
#[inline(always)]
fn destination(ctx: *mut bpf_sock_addr, address: Halves) -> Halves {
    if address == Halves::from_v4(0) {
        Halves::from_v4(qfence_unspecified_v4(ctx))
    } else if address == Halves::NONE {
        // As in `tcp_v6_connect` (net/ipv6/tcp_ipv6.c).
        LOCALHOST_V6
    } else {
        address
    }
}

/// Returns the address to which 0.0.0.0 leads: the one to which the socket is bound (`ip_route_output_key_hash_rcu` in
/// net/ipv4/route.c), or 127.0.0.1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address")]
extern "C" fn qfence_unspecified_v4(ctx: *mut bpf_sock_addr) -> u32 {
    let bound = local_address(socket(&SockAddrContext::new(ctx)));
    match bound.lower as u32 {
        number if bound.is_v4() && number != 0 => number,
        _ => LOCALHOST_V4,
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
