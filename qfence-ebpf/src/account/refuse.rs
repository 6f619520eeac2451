//! Builds the refusals of the hooks for calls and packets. The functions are global, so that the verifier checks them
//! separately (see `judge/policy.rs`): they are much longer than the path of allowed calls.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_addr},
    helpers::bpf_get_netns_cookie,
    programs::{SkBuffContext, SockAddrContext},
};
use qfence_common::{
    Halves, Hook, Protocol, Verdict,
    event::OWN_LISTENER,
    packet::read_address,
    verdict::{HOST, MANY, MONITOR, SELF, UNPARSED},
};

use crate::{
    account::record::{Refusal, record_with, sight},
    judge::own::call::{qfence_would_connect, qfence_would_send},
    subject::{
        author::Author,
        destination, owner,
        skb::{Skb, whole_socket},
        socket::{local_address, local_port},
    },
};

/// The parts of a refusal other than the address.
#[derive(Clone, Copy)]
pub(crate) struct Rest {
    pub(crate) hook: u32,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// The source port of a packet. For a call it is read from the socket; here it is 1 if a rule for `self` would allow it.
    pub(crate) source_port: u16,
}

impl Rest {
    /// Packs all parts into one word, because there are too few registers. The kernel also uses 16 bits for a protocol.
    #[inline(always)]
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.port)
            | u64::from(self.source_port) << 16
            | (u64::from(self.protocol.0) & 0xffff) << 32
            | u64::from(self.hook) << 48
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub(crate) fn unpack(word: u64) -> Self {
        Self {
            port: word as u16,
            source_port: (word >> 16) as u16,
            protocol: Protocol(u32::from((word >> 32) as u16)),
            hook: u32::from((word >> 48) as u16),
        }
    }
}

/// Records a connect() that is refused, or that would be refused if the policy were enforced.
#[inline(always)]
pub(crate) fn refuse_connect(ctx: &SockAddrContext, to: Halves, verdict: Verdict, rest: Rest) {
    let Halves { upper, lower } = to;
    // Not by what records the refusal: there is no room on the stack for both.
    let is_own =
        may_be_own(verdict) && qfence_would_connect(ctx.sock_addr, upper, lower, rest.pack()) != 0;
    let rest = Rest {
        source_port: is_own.into(),
        ..rest
    };
    qfence_refuse_call(ctx.sock_addr, upper, lower, verdict.bits(), rest.pack());
}

/// The same for a call that sends a datagram.
#[inline(always)]
pub(crate) fn refuse_send(ctx: &SockAddrContext, to: Halves, verdict: Verdict, rest: Rest) {
    let Halves { upper, lower } = to;
    // Not by what records the refusal: there is no room on the stack for both.
    let is_own =
        may_be_own(verdict) && qfence_would_send(ctx.sock_addr, upper, lower, rest.pack()) != 0;
    let rest = Rest {
        source_port: is_own.into(),
        ..rest
    };
    qfence_refuse_send(ctx.sock_addr, upper, lower, verdict.bits(), rest.pack());
}

/// Whether a rule for `self` might allow what this verdict denies.
#[inline(always)]
fn may_be_own(verdict: Verdict) -> bool {
    verdict.has(HOST) && !verdict.has(MANY) && !verdict.has(SELF)
}

/// Records a packet that is refused, or that would be refused if the policy were enforced. `other` is the address of
/// the remote end.
#[inline(always)]
pub(crate) fn refuse_packet(ctx: &SkBuffContext, other: Halves, verdict: Verdict, rest: Rest) {
    qfence_refuse_packet(
        ctx.skb.skb,
        other.upper,
        other.lower,
        verdict.bits(),
        rest.pack(),
    );
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_refuse_call(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    verdict: u32,
    rest: u64,
) -> u32 {
    refuse_call(ctx, Halves { upper, lower }, verdict, rest)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_refuse_send(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    verdict: u32,
    rest: u64,
) -> u32 {
    refuse_call(ctx, Halves { upper, lower }, verdict, rest)
}

#[inline(always)]
fn refuse_call(ctx: *mut bpf_sock_addr, to: Halves, verdict: u32, rest: u64) -> u32 {
    let socket = destination::socket(&SockAddrContext::new(ctx));
    let rest = Rest::unpack(rest);
    let own = if rest.source_port != 0 {
        OWN_LISTENER
    } else {
        0
    };
    let rest = Rest {
        source_port: local_port(socket),
        ..rest
    };
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.cast()) };
    let verdict = Verdict::from_bits(verdict);
    put(
        to,
        local_address(socket),
        verdict,
        rest,
        &owner::caller(socket, netns),
        || own,
    )
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_refuse_packet(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    verdict: u32,
    rest: u64,
) -> u32 {
    let rest = Rest::unpack(rest);
    let leaves = rest.hook == Hook::Egress as u32;
    put(
        Halves { upper, lower },
        read_address(&Skb(skb), leaves),
        Verdict::from_bits(verdict),
        rest,
        &owner::author(skb, whole_socket(skb)),
        || 0,
    )
}

/// Records and counts the refusal, with [more flags](record_with). Returns 0, because a global function must return a value.
#[inline(always)]
fn put(
    address: Halves,
    source: Halves,
    verdict: Verdict,
    rest: Rest,
    who: &Author,
    flags: impl FnOnce() -> u32,
) -> u32 {
    let what = Refusal {
        address,
        port: u32::from(rest.port),
        protocol: rest.protocol.0,
        hook: rest.hook,
        rule: verdict.rule(),
        source,
        source_port: u32::from(rest.source_port),
    };
    let monitored = verdict.has(MONITOR);
    record_with(&what, who, monitored, flags);
    // A packet that could not be parsed has no destination.
    if monitored && verdict.rule() != UNPARSED {
        sight(&what);
    }
    0
}
