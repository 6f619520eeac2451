//! Datagrams that a connected socket sends without a destination.
//!
//! They pass no hook for calls, unless they have control data, such as IP_TOS: then the kernel calls the hook without an
//! address (`udp_sendmsg` in net/ipv4/udp.c and `udpv6_sendmsg` in net/ipv6/udp.c clear `connected`), and the program sees the
//! unspecified one and port 0. No call names that port: the kernel refuses it before the hook.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use qfence_common::{
    Action, LookupPath, Protocol, Verdict,
    tally::Class,
    verdict::{MANY, MONITOR},
};

use crate::{
    account::{
        count::{hit, tally_call},
        refuse::{Rest, refuse_send},
    },
    judge::{denied, is_own_loopback, of_address, policy::verdict},
    subject::{
        destination::{Destination, socket},
        socket::{remote_address, remote_port},
    },
};

/// The results for a datagram without a named destination, in the upper half of a word: it is judged like any other; it goes
/// on; it is refused, or would be if the policy were enforced, by the verdict in the lower half.
const JUDGED: u32 = 0;
const SENT: u32 = 1;
const DENIED: u32 = 2;

/// Whether a call that sends names no destination.
#[inline(always)]
pub(super) const fn is_unnamed(to: &Destination) -> bool {
    to.port == 0 && to.address.is_unspecified()
}

/// Judges a datagram without a named destination, at the hook with number `HOOK`. `None` if it is judged like any other,
/// otherwise the return value of the hook, or of the call.
///
/// Its socket was connected by a call that was judged, and it is judged again when it leaves, as without control data. But of
/// an IPv4 address with many receivers the host gets its copy before that, so such a one is judged here.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a half of it")]
pub(super) fn judge_unnamed<const HOOK: u32>(
    ctx: &SockAddrContext,
    to: &Destination,
) -> Option<Sending> {
    let word = qfence_judge_unnamed(ctx.sock_addr, to.protocol.0);
    match (word >> u32::BITS) as u32 {
        JUDGED => return None,
        SENT => return Some(Sending::Proceeds),
        _ => {}
    }
    let verdict = word as u32;
    let rest = Rest {
        hook: HOOK,
        protocol: to.protocol,
        port: to.port,
        source_port: 0,
    };
    qfence_refuse_unnamed(ctx.sock_addr, verdict, rest.pack());
    Some(if Verdict::from_bits(verdict).has(MONITOR) {
        Sending::Proceeds
    } else {
        Sending::Fails
    })
}

/// Records a datagram that is refused, by the peer of its socket. Returns 0, because a global function must return a value.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_refuse_unnamed(ctx: *mut bpf_sock_addr, verdict: u32, rest: u64) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let socket = socket(&ctx);
    if socket.is_null() {
        return 0;
    }
    let rest = Rest {
        port: remote_port(socket),
        ..Rest::unpack(rest)
    };
    refuse_send(
        &ctx,
        remote_address(socket),
        Verdict::from_bits(verdict),
        rest,
    );
    0
}

/// What becomes of a call.
pub(super) enum Sending {
    Proceeds,
    Fails,
}

/// Returns one of the results above. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_unnamed(ctx: *mut bpf_sock_addr, protocol: u32) -> u64 {
    let socket = socket(&SockAddrContext::new(ctx));
    if socket.is_null() || remote_port(socket) == 0 {
        return result(JUDGED, 0);
    }
    let (address, port) = (remote_address(socket), remote_port(socket));
    if !of_address(address).has(MANY) {
        return result(SENT, 0);
    }
    let protocol = Protocol(protocol);
    let verdict = verdict(LookupPath::Address, address, protocol, port);
    let to = Destination {
        address,
        port,
        protocol,
        path: LookupPath::Address,
    };
    if is_own_loopback(&to, verdict, true, || socket) {
        return result(SENT, 0);
    }
    hit(verdict.rule(), true);
    if verdict.action() == Action::Allow {
        return result(SENT, 0);
    }
    let outcome = denied(verdict.has(MONITOR));
    tally_call(outcome as u32, Class::number(protocol), false);
    result(DENIED, verdict.bits())
}

#[inline(always)]
const fn result(of: u32, verdict: u32) -> u64 {
    (of as u64) << u32::BITS | verdict as u64
}
