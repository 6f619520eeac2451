//! The hooks for calls with a destination: connect(2), and sending to an address.

mod against;
mod connected;
mod unspecified;

use aya_ebpf::{bindings::bpf_sock_addr, programs::SockAddrContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Protocol, Verdict,
    proof::{self, Token},
    tally::Class,
};

use super::lead;
use crate::{
    account::{
        PROCEED,
        count::{hit_by_call, tally_call},
        fail_with, flows,
        refuse::{Rest, refuse_connect, refuse_send},
        trace::trace,
    },
    judge::{
        Judgement, judge_verdict,
        own::call::{qfence_own_connection, qfence_own_datagram},
        policy::{knows_self, verdict, verdict_at_once},
    },
    maps::{DENY_RETVAL, PROOF},
    subject::destination::{Destination, socket},
};
pub(super) use against::is_policy_followed;
use against::{has_nothing_against, qfence_object_to_connect, qfence_object_to_send};
use connected::{Sending, is_unnamed, judge_unnamed};
use unspecified::{JUDGED, TO_NOBODY, asks_for_source, lead_to_nobody, qfence_judge_unspecified};

/// Judges the destination of a call at the hook with number `HOOK`. Returns the return value of the hook.
#[inline(always)]
pub(crate) fn judge_call<const HOOK: u32>(ctx: &SockAddrContext, to: &Destination) -> i32 {
    if Token(PROOF.load()).is(to.address, to.port) {
        return fail_with(-proof::ERRNO);
    }
    if !connects(HOOK) && is_unnamed(to) {
        match judge_unnamed::<HOOK>(ctx, to) {
            None => {}
            Some(Sending::Proceeds) => return PROCEED,
            Some(Sending::Fails) => return fail_with(DENY_RETVAL.load()),
        }
    }
    let rest = Rest {
        hook: HOOK,
        protocol: to.protocol,
        port: to.port,
        source_port: 0,
    };
    let query = lead::judge_query(ctx, to, rest);
    let Halves { upper, lower } = to.address;
    let judgement = if query == lead::AS_IT_IS {
        // Every connection waits for this, and sending costs more by itself.
        let verdict = if connects(HOOK) {
            verdict_at_once(to.path, to.address, to.protocol, to.port)
        } else {
            verdict(to.path, to.address, to.protocol, to.port)
        };
        if connects(HOOK) && asks_for_source::<HOOK>(to) && verdict.action() == Action::Deny {
            match qfence_judge_unspecified(ctx.sock_addr, upper, lower, verdict.bits()) {
                JUDGED => {}
                TO_NOBODY => {
                    lead_to_nobody(ctx);
                    return PROCEED;
                }
                _ => return PROCEED,
            }
        }
        judge_by_policy::<HOOK>(ctx, to, verdict, rest)
    } else {
        query
    };
    let is_clear = has_nothing_against(ctx, to, judgement);
    if query == lead::AS_IT_IS && Judgement::verdict_of(judgement).action() == Action::Allow {
        let verdict = Judgement::verdict_of(judgement);
        // Most calls end here.
        if hit_by_call(verdict.rule(), is_clear, connects(HOOK)) {
            trace::<HOOK>(to, Outcome::Sent, verdict);
            flows::note_call(ctx, to, verdict.rule());
            return PROCEED;
        }
    }
    let judgement = if is_clear {
        judgement
    } else if connects(HOOK) {
        qfence_object_to_connect(ctx.sock_addr, judgement, upper, lower, rest.pack())
    } else {
        qfence_object_to_send(ctx.sock_addr, judgement, upper, lower, rest.pack())
    };
    let number = Judgement::outcome_of(judgement);
    let Judgement {
        outcome,
        verdict,
        is_own,
        ..
    } = Judgement::unpack(judgement);
    trace::<HOOK>(to, outcome, verdict);
    tally_call(number, Class::number(to.protocol), connects(HOOK));
    if outcome == Outcome::Sent {
        if query != lead::AS_IT_IS {
            lead::lead::<HOOK>(ctx, to);
            return PROCEED;
        }
        // No rule allows a reply, a pair, or the loopback of a namespace of the fence's own.
        let rule = match verdict.action() {
            Action::Allow => Some(verdict.rule()),
            Action::Deny if is_own => verdict.self_rule(),
            Action::Deny => None,
        };
        if let Some(rule) = rule {
            flows::note_call(ctx, to, rule);
        }
        return PROCEED;
    }
    if connects(HOOK) {
        refuse_connect(ctx, to.address, verdict, rest);
    } else {
        refuse_send(ctx, to.address, verdict, rest);
    }
    if outcome == Outcome::SentMonitored {
        return PROCEED;
    }
    fail_with(DENY_RETVAL.load())
}

/// Judges a call by the policy's verdict. Returns a packed judgement. What a rule allows, as most calls, takes no call of a
/// function, and is not counted yet.
#[inline(always)]
fn judge_by_policy<const HOOK: u32>(
    ctx: &SockAddrContext,
    to: &Destination,
    verdict: Verdict,
    rest: Rest,
) -> u64 {
    if verdict.action() == Action::Allow {
        return Judgement::allowed(verdict).pack();
    }
    let Halves { upper, lower } = to.address;
    if connects(HOOK) {
        qfence_judge_connect(ctx.sock_addr, upper, lower, rest.pack(), verdict.bits())
    } else {
        qfence_judge_send(ctx.sock_addr, upper, lower, rest.pack(), verdict.bits())
    }
}

// A program has one of the next two functions only: the verifier would check for each what only the other does.

/// Judges a connect() that the policy denies, given its address, the packed rest and the verdict. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_connect(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
    verdict: u32,
) -> u64 {
    let own = |protocol, verdict: Verdict| match protocol {
        Protocol::UDP if knows_self() => {
            qfence_own_datagram(ctx, upper, lower, rest, verdict.bits())
        }
        protocol if is_tcp(protocol) => {
            qfence_own_connection(ctx, upper, lower, rest, verdict.bits())
        }
        _ => 0,
    };
    judge_denied(ctx, Halves { upper, lower }, rest, verdict, own)
}

/// Judges the sending of a datagram to an address, given the same. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_send(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
    verdict: u32,
) -> u64 {
    let own = |protocol, verdict: Verdict| match protocol {
        Protocol::UDP if knows_self() => {
            qfence_own_datagram(ctx, upper, lower, rest, verdict.bits())
        }
        _ => 0,
    };
    judge_denied(ctx, Halves { upper, lower }, rest, verdict, own)
}

#[inline(always)]
fn judge_denied(
    ctx: *mut bpf_sock_addr,
    address: Halves,
    rest: u64,
    verdict: u32,
    own: impl FnOnce(Protocol, Verdict) -> u32,
) -> u64 {
    let ctx = SockAddrContext::new(ctx);
    let Rest { protocol, port, .. } = Rest::unpack(rest);
    let to = Destination {
        address,
        port,
        protocol,
        path: LookupPath::Address,
    };
    let verdict = Verdict::from_bits(verdict);
    judge_verdict(
        &to,
        verdict,
        true,
        || socket(&ctx),
        |verdict| own(protocol, verdict),
    )
}

/// Whether the hook with this number is a hook for connect().
const fn connects(hook: u32) -> bool {
    hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32
}

#[inline(always)]
pub(super) fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::MPTCP
}
