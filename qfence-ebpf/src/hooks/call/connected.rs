//! Datagrams that a connected socket sends without a destination.
//!
//! They pass no hook for calls, unless they have control data, such as IP_TOS: then the kernel calls the hook without an
//! address (`udp_sendmsg` in net/ipv4/udp.c and `udpv6_sendmsg` in net/ipv6/udp.c clear `connected`), and the program sees the
//! unspecified one and port 0. No call names that port: the kernel refuses it before the hook.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use qfence_common::{
    Action, LookupPath, Protocol,
    tally::Class,
    verdict::{MANY, MONITOR},
};

use crate::{
    account::{
        count::{hit, tally_call},
        refuse::{Rest, refuse_send},
    },
    judge::{denied, of_address, policy::verdict},
    subject::{
        destination::{Destination, socket},
        socket::{remote_address, remote_port},
    },
};

/// The results for a datagram without a named destination: it is judged like any other; it goes on; it is refused.
pub(super) const JUDGED: u32 = 0;
pub(super) const SENT: u32 = 1;
const REFUSED: u32 = 2;

/// Whether a call that sends names no destination.
#[inline(always)]
pub(super) const fn is_unnamed(to: &Destination) -> bool {
    to.port == 0 && to.address.is_unspecified()
}

/// Judges a datagram without a named destination, at the hook with this number. Its socket was connected by a call that was
/// judged, and it is judged again when it leaves, as without control data. But of an IPv4 address with many receivers the
/// host gets its copy before that, so such a one is judged here. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_judge_unnamed(
    ctx: *mut bpf_sock_addr,
    hook: u32,
    protocol: u32,
) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    let socket = socket(&ctx);
    if socket.is_null() || remote_port(socket) == 0 {
        return JUDGED;
    }
    let (address, port) = (remote_address(socket), remote_port(socket));
    if !of_address(address).has(MANY) {
        return SENT;
    }
    let protocol = Protocol(protocol);
    let verdict = verdict(LookupPath::Address, address, protocol, port);
    hit(verdict.rule(), true);
    if verdict.action() == Action::Allow {
        return SENT;
    }
    let is_monitored = verdict.has(MONITOR);
    let outcome = denied(is_monitored);
    tally_call(outcome as u32, Class::number(protocol), false);
    let rest = Rest {
        hook,
        protocol,
        port,
        source_port: 0,
    };
    refuse_send(&ctx, address, verdict, rest);
    if is_monitored { SENT } else { REFUSED }
}
