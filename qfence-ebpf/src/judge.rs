//! From a destination to a verdict.

use aya_ebpf::{
    EbpfContext, bindings::bpf_sock, helpers::bpf_set_retval, programs::SockAddrContext,
};
use qfence_common::{
    Action, Halves, Hook, Outcome, Path, Protocol, Verdict,
    proof::{self, Token},
    tally::Class,
    verdict::{HOST, MONITOR},
};

use crate::{
    count::{hit, tally_call},
    destination::{Destination, socket},
    maps::{DENY_RETVAL, PROOF},
    owner, peers,
    policy::verdict,
    refuse::{Rest, refuse_call},
    trace::trace,
};

/// What a hook returns to let the call or the packet go on.
pub(crate) const PROCEED: i32 = 1;
/// What a hook returns to fail the call, or to drop the packet.
pub(crate) const REJECT: i32 = 0;

/// Judges the destination of a call at the hook of number `HOOK`; the hook's return value.
#[inline(always)]
pub(crate) fn judge_call<const HOOK: u32>(ctx: &SockAddrContext, to: &Destination) -> i32 {
    if Token(PROOF.load()).is(to.address, to.port) {
        return fail_with(-proof::ERRNO);
    }
    let Judgement { outcome, verdict } = judge::<HOOK, _>(ctx, to, || socket(ctx));
    tally_call(outcome, Class::of(to.protocol), connects(HOOK));
    if connects(HOOK) && is_tcp(to.protocol) && outcome != Outcome::Refused {
        owner::note_connection(socket(ctx), verdict.has(HOST));
    }
    if outcome == Outcome::Sent {
        return PROCEED;
    }
    let rest = Rest {
        hook: HOOK,
        protocol: to.protocol,
        port: to.port,
        source_port: 0,
    };
    refuse_call(ctx, to.address, verdict, rest);
    if outcome == Outcome::SentMonitored {
        return PROCEED;
    }
    fail_with(DENY_RETVAL.load())
}

/// Fails a call, with that error where the kernel lets programs choose.
#[inline(always)]
fn fail_with(retval: i32) -> i32 {
    if DENY_RETVAL.load() != 0 {
        // SAFETY: a helper without pointers. It fails for values that are no errno, and the call
        // then fails with EPERM: refused all the same.
        unsafe { bpf_set_retval(retval) };
    }
    REJECT
}

/// What came of judging a destination.
pub(crate) struct Judgement {
    /// What is to become of it.
    pub(crate) outcome: Outcome,
    pub(crate) verdict: Verdict,
}

/// The policy's word on a destination, but that a peer which spoke first may be answered from `socket`.
///
/// The hook's number is a parameter of the type, so that it is a constant of each program's.
#[inline(always)]
pub(crate) fn judge<const HOOK: u32, C: EbpfContext>(
    ctx: &C,
    to: &Destination,
    socket: impl FnOnce() -> *mut bpf_sock,
) -> Judgement {
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    let is_denied = verdict.action() == Action::Deny;
    let outcome = if is_denied && answers(to, socket()) {
        Outcome::Sent
    } else {
        hit(verdict.rule(), HOOK < Hook::Egress as u32);
        if !is_denied {
            Outcome::Sent
        } else if verdict.has(MONITOR) {
            Outcome::SentMonitored
        } else {
            Outcome::Refused
        }
    };
    trace::<HOOK, _>(ctx, to, outcome, verdict);
    Judgement { outcome, verdict }
}

/// Whether the hook of that number is one for connect().
const fn connects(hook: u32) -> bool {
    hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32
}

#[inline(always)]
fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::MPTCP
}

/// What the policy has to say on an address, whatever the protocol: its flags are of use.
#[inline(always)]
pub(crate) fn of_address(address: Halves) -> Verdict {
    verdict(Path::Address, address, Protocol::ANY, 0)
}

/// Whether this is an answer to a datagram that came from there.
#[inline(always)]
fn answers(to: &Destination, socket: *mut bpf_sock) -> bool {
    to.protocol == Protocol::UDP && has_spoken(socket, to.address.upper, to.address.lower, to.port)
}

/// Whether a peer of a socket has been heard of of late.
///
/// A function of its own: what it has on the stack and what is traced do not fit into one frame.
#[inline(never)]
fn has_spoken(socket: *mut bpf_sock, upper: u64, lower: u64, port: u16) -> bool {
    peers::peer(socket, Halves { upper, lower }, port).is_some_and(|peer| peers::spoke_first(&peer))
}
