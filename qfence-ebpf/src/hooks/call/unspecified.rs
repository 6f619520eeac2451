//! UDP connect() calls that only ask for a source address.

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use qfence_common::{
    Halves, Hook, LookupPath, Protocol, Verdict,
    verdict::{MANY, MONITOR},
};

use crate::{
    judge::is_own_loopback,
    subject::{
        destination::{Destination, socket},
        owner,
    },
};

/// The results for a UDP connect() that asks for a source address: it is judged like any other; it goes to port 0; it is
/// left as it is.
pub(super) const JUDGED: u32 = 0;
pub(super) const TO_NOBODY: u32 = 1;
const AS_IT_IS: u32 = 2;

/// Judges a UDP connect() to the unspecified address, which is the host's loopback, or to port 0. C libraries connect
/// sockets to the addresses that they have found, ask for the source address, and send nothing (getaddrinfo(3) sorts by it,
/// RFC 6724). For a listener on all addresses, that is the unspecified one. So the call succeeds, and is not recorded, but
/// the socket leads to port 0, to which nothing can be bound (`inet_get_port` chooses another): PPPoL2TP sends by a
/// connected UDP socket of the process, and such a packet passes no egress program. What the process sends by the socket
/// passes it, and is refused.
///
/// That is not so of an IPv4 address with many receivers, since the host gets its copy before the hook (docs/kernel.md). What
/// is sent while another thread connects the socket from that address to another port can have this port. So the call is
/// refused.
///
/// A denied call that is only monitored is left as it is: what is sent is recorded. `verdict` denies it. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_judge_unspecified(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    verdict: u32,
) -> u32 {
    let verdict = Verdict::from_bits(verdict);
    let to = Destination {
        address: Halves { upper, lower },
        port: 0,
        protocol: Protocol::UDP,
        path: LookupPath::Address,
    };
    if verdict.has(MANY)
        || is_own_loopback(&to, verdict, true, || socket(&SockAddrContext::new(ctx)))
    {
        return JUDGED;
    }
    // Both lead to another port than the nameservers' (`judge/redirected.rs`).
    let _ = owner::mark_other_port(socket(&SockAddrContext::new(ctx)));
    if verdict.has(MONITOR) {
        return AS_IT_IS;
    }
    TO_NOBODY
}

/// Whether a UDP connect() only asks for a source address, as far as its destination tells. glibc connects to port 0 if the
/// look-up has no service. What is sent by a socket that is connected to a v4-mapped address is not judged by itself
/// (`udpv6_sendmsg` calls `udp_sendmsg`), so such a connect() is judged like any other.
#[inline(always)]
pub(super) fn asks_for_source<const HOOK: u32>(to: &Destination) -> bool {
    let is_of_family = HOOK == Hook::Connect4 as u32 || !to.address.is_v4();
    to.protocol == Protocol::UDP && is_of_family && (to.address.is_unspecified() || to.port == 0)
}

/// Changes the port of a call's destination to 0.
#[inline(always)]
pub(super) fn lead_to_nobody(ctx: &SockAddrContext) {
    // SAFETY: the hook's own context; the verifier permits this write.
    let port = unsafe { &raw mut (*ctx.sock_addr).user_port };
    // SAFETY: as above. It is volatile, so that the compiler keeps the width.
    unsafe { port.write_volatile(0) };
}
