//! Leads queries for names to the resolver of the fence, and shows its answers as those of the nameserver that was asked.
//!
//! A query is a call to port 53 by UDP or TCP, in the network namespace of the resolver, under a policy with rules by name.
//! The policy does not judge it. The call is changed to lead to the resolver, and the destination that it named is noted for
//! its socket. The programs at `recvmsg` and `getpeername` put that destination in place of the resolver's. A socket that
//! asks several nameservers sees all answers come from the last one.
//!
//! A socket that is bound to a device cannot reach the resolver. If the process that follows the host is dead, another one
//! could listen in place of the resolver. Such queries are refused.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr},
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_sk_storage_get},
    programs::{SkBuffContext, SockAddrContext},
};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Payload, Protocol, Verdict,
    packet::read_address,
    resolved::Asker,
    verdict::{HOST, MONITOR, NO_RULE, UNLED},
};

use super::call::{is_policy_followed, is_tcp};
use crate::{
    account::{PROCEED, refuse::Rest},
    judge::{
        Judgement,
        policy::{has_resolver, knows_names, monitors},
        redirected::DNS,
        refused,
    },
    maps::{ASKERS, LED, RESOLVER},
    subject::{
        destination::{Destination, socket},
        owner,
        skb::{Skb, whole_socket},
        socket::{is_raw, remote_address, remote_port},
    },
};

/// The nameserver that a socket asked last. The value of the socket storage.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Led {
    address: Halves,
    /// In host order.
    port: u64,
}

/// The result for a call that is no query, or is not led.
pub(super) const AS_IT_IS: u64 = 0;

/// Judges a query for a name. Returns a packed [`Judgement`], or [`AS_IT_IS`] if the policy is to judge the call. A query that
/// is sent is [led](lead) afterwards.
#[inline(always)]
pub(super) fn judge_query(ctx: &SockAddrContext, to: &Destination, rest: Rest) -> u64 {
    if !has_resolver() {
        return AS_IT_IS;
    }
    let is_query = to.protocol == Protocol::UDP || is_tcp(to.protocol);
    let is_led = to.port == DNS || is_repeated(rest.hook, to.address, to.port);
    if !is_query || !is_led || !knows_names() {
        return AS_IT_IS;
    }
    let Halves { upper, lower } = to.address;
    qfence_judge_query(ctx.sock_addr, upper, lower, rest.pack())
}

/// Whether a call can be that of the kernel for a datagram without a destination: for an IPv6 socket that is connected to a
/// v4-mapped address, the kernel names the address to which the socket was led (`udpv6_sendmsg` calls `udp_sendmsg`).
#[inline(always)]
fn is_repeated(hook: u32, address: Halves, port: u16) -> bool {
    hook == Hook::Sendmsg4 as u32 && RESOLVER.load().is(address, port)
}

/// Judges a query, and notes the nameserver that it names. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_query(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u64 {
    let address = Halves { upper, lower };
    let Rest {
        hook,
        protocol,
        port,
        ..
    } = Rest::unpack(rest);
    let resolver = RESOLVER.load();
    // SAFETY: the hook's own context.
    if unsafe { bpf_get_netns_cookie(ctx.cast()) } != resolver.netns {
        return AS_IT_IS;
    }
    let is_monitored = monitors();
    let socket = socket(&SockAddrContext::new(ctx));
    if socket.is_null() {
        return refused(UNLED, is_monitored).pack();
    }
    let is_repeated = is_repeated(hook, address, port);
    if is_repeated && !is_led_to(socket, address, port) {
        return AS_IT_IS;
    }
    // SAFETY: a socket, not null.
    let device = unsafe { (*socket).bound_dev_if };
    let is_v6 = is_v6(hook) && !address.is_v4();
    if device != 0
        || (is_v6 && resolver.has_v6 == 0)
        || !is_policy_followed()
        || !(is_repeated || note(socket, address, port))
    {
        return refused(UNLED, is_monitored).pack();
    }
    // The packets of a connection to the host are no sign of an address that has become local since.
    let to_host = if is_tcp(protocol) { HOST } else { 0 };
    let monitored = if is_monitored { MONITOR } else { 0 };
    Judgement {
        outcome: Outcome::Sent,
        verdict: Verdict::new(Action::Allow, NO_RULE).with(to_host | monitored),
        is_reply: false,
        is_own: false,
    }
    .pack()
}

/// Whether a full socket was led to an address and a port, and is connected to it.
#[inline(always)]
fn is_led_to(socket: *mut bpf_sock, address: Halves, port: u16) -> bool {
    remote_port(socket) == port
        && remote_address(socket) == address
        && !storage(socket, core::ptr::null_mut()).is_null()
}

/// Whether the hook with this number is one for IPv6 sockets.
const fn is_v6(hook: u32) -> bool {
    hook == Hook::Connect6 as u32
        || hook == Hook::Sendmsg6 as u32
        || hook == Hook::Recvmsg6 as u32
        || hook == Hook::Getpeername6 as u32
}

/// Changes the destination of a query at the hook with number `HOOK` to the resolver. A v4-mapped destination stays one.
#[inline(always)]
pub(super) fn lead<const HOOK: u32>(ctx: &SockAddrContext, to: &Destination) {
    let resolver = RESOLVER.load();
    let address = if is_v6(HOOK) && !to.address.is_v4() {
        Halves { upper: 0, lower: 1 }
    } else {
        Halves::from_v4(resolver.v4)
    };
    set::<HOOK>(ctx, address, resolver.port);
}

/// Shows the nameserver that a socket asked in place of the resolver, at the hook with number `HOOK`. Returns the return value
/// of the hook.
#[inline(always)]
pub(crate) fn restore<const HOOK: u32>(ctx: &SockAddrContext, from: &Destination) -> i32 {
    if RESOLVER.load().is(from.address, from.port) {
        let socket = socket(ctx);
        // SAFETY: null, or a value of the map, which stays readable until the program ends (RCU).
        if let Some(led) = unsafe { storage(socket, core::ptr::null_mut()).as_ref() } {
            set::<HOOK>(ctx, led.address, u16::try_from(led.port).unwrap_or(DNS));
        }
    }
    PROCEED
}

/// Writes an address and a port to the context of the hook with number `HOOK`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "parts of an address")]
fn set<const HOOK: u32>(ctx: &SockAddrContext, address: Halves, port: u16) {
    if is_v6(HOOK) {
        let Halves { upper, lower } = address;
        let words = [
            (upper >> u32::BITS) as u32,
            upper as u32,
            (lower >> u32::BITS) as u32,
            lower as u32,
        ];
        // SAFETY: the hook's own context; the verifier permits these writes. They are volatile, so that the compiler keeps
        // their width.
        let place = unsafe { &raw mut (*ctx.sock_addr).user_ip6 }.cast::<u32>();
        // SAFETY: as above.
        unsafe { place.write_volatile(words[0].to_be()) };
        // SAFETY: as above.
        let word = unsafe { place.add(1) };
        // SAFETY: as above.
        unsafe { word.write_volatile(words[1].to_be()) };
        // SAFETY: as above.
        let word = unsafe { place.add(2) };
        // SAFETY: as above.
        unsafe { word.write_volatile(words[2].to_be()) };
        // SAFETY: as above.
        let word = unsafe { place.add(3) };
        // SAFETY: as above.
        unsafe { word.write_volatile(words[3].to_be()) };
    } else {
        // SAFETY: as above.
        let place = unsafe { &raw mut (*ctx.sock_addr).user_ip4 };
        // SAFETY: as above.
        unsafe { place.write_volatile((address.lower as u32).to_be()) };
    }
    // SAFETY: as above.
    let place = unsafe { &raw mut (*ctx.sock_addr).user_port };
    // SAFETY: as above. `user_port` is in network order, in the low half of the word.
    unsafe { place.write_volatile(u32::from(port.to_be())) };
}

/// Notes the nameserver that a full socket asks. Returns false if there is no memory for it.
#[inline(always)]
fn note(socket: *mut bpf_sock, address: Halves, port: u16) -> bool {
    let mut fresh = Led {
        address,
        port: port.into(),
    };
    let led = storage(socket, &raw mut fresh);
    if led.is_null() {
        return false;
    }
    // SAFETY: a value of the map, aligned and alive as long as the program runs. A thread that reads it meanwhile can see
    // parts of two addresses that the fence has asked.
    unsafe { led.write_volatile(fresh) };
    true
}

/// Returns the value of a full socket in the storage. If there is none, it is created from `fresh`; null if `fresh` is null,
/// or there is no memory.
#[inline(always)]
fn storage(socket: *mut bpf_sock, fresh: *mut Led) -> *mut Led {
    if socket.is_null() {
        return core::ptr::null_mut();
    }
    let flags = if fresh.is_null() {
        0
    } else {
        u64::from(BPF_SK_STORAGE_GET_F_CREATE)
    };
    // SAFETY: the map is a socket storage of these values. The socket is a full socket. `fresh` is null or a complete value,
    // which the kernel copies.
    let led = unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&LED).cast_mut().cast(),
            socket.cast(),
            fresh.cast(),
            flags,
        )
    };
    led.cast()
}

/// Whether a packet that leaves belongs to a query to the resolver, under a policy with rules by name. Its source is then noted
/// as one that asks.
#[inline(always)]
pub(crate) fn asks(ctx: &SkBuffContext, to: &Destination, payload: Payload) -> bool {
    let is_query = to.protocol == Protocol::UDP || to.protocol == Protocol::TCP;
    is_query
        && to.path == LookupPath::Loopback
        && RESOLVER.load().is(to.address, to.port)
        && qfence_asks(ctx.skb.skb, payload.bits()) != 0
}

/// Whether the socket of a packet to the resolver is one of the fence's in the resolver's network namespace, and the source is
/// noted: 0 or 1. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_asks(skb: *mut __sk_buff, payload: u64) -> u32 {
    // Without a supervisor, others could bind the port of the resolver.
    if !knows_names() || !is_policy_followed() {
        return 0;
    }
    let socket = whole_socket(skb);
    if socket.is_null() || is_raw(socket) || owner::netns(socket) != Some(RESOLVER.load().netns) {
        return 0;
    }
    let payload = Payload::from_bits(payload);
    if payload.continues_tcp() {
        return 1;
    }
    let asker = Asker {
        address: read_address(&Skb(skb), true),
        port: payload.source_port(),
        protocol: u16::try_from(payload.protocol().0).unwrap_or(0),
        reserved: 0,
    };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    ASKERS.insert(asker, now, BPF_ANY.into()).is_ok().into()
}
