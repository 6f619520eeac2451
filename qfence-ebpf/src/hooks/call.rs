//! Calls with a destination: connect(2), and sending to an address.

use aya_ebpf::{
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_set_retval},
    programs::SockAddrContext,
};
use qfence_common::{
    Hook, Outcome, Protocol,
    proof::{self, Token},
    pulse::is_followed,
    tally::Class,
    verdict::{FOREIGN_NETNS, HOST, MONITOR, UNFOLLOWED, UNOWNED},
};

use crate::{
    account::{
        PROCEED, REJECT,
        count::tally_call,
        refuse::{Rest, refuse_call},
        trace::trace,
    },
    judge::{Judgement, judge, reason_against_socket, refused},
    maps::{ALLOW_NETNS, DENY_RETVAL, PROOF, PULSE, marks::marks},
    subject::{
        destination::{Destination, socket},
        netns::is_home,
        owner,
    },
};

/// Judges the destination of a call at the hook of number `HOOK`; the hook's return value.
#[inline(always)]
pub(crate) fn judge_call<const HOOK: u32>(ctx: &SockAddrContext, to: &Destination) -> i32 {
    if Token(PROOF.load()).is(to.address, to.port) {
        return fail_with(-proof::ERRNO);
    }
    let judgement = judge::<HOOK>(to, || socket(ctx));
    let Judgement {
        outcome, verdict, ..
    } = object::<HOOK>(ctx, to, judgement);
    trace::<HOOK, _>(ctx, to, outcome, verdict);
    tally_call(outcome, Class::of(to.protocol), connects(HOOK));
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

/// The judgement of a call, unless there is a reason to refuse what the policy lets go.
#[inline(always)]
fn object<const HOOK: u32>(
    ctx: &SockAddrContext,
    to: &Destination,
    judgement: Judgement,
) -> Judgement {
    if judgement.outcome == Outcome::Refused {
        return judgement;
    }
    let reason = reason_against::<HOOK>(ctx, to, judgement.verdict.has(HOST));
    match reason {
        Some(reason) if judgement.outcome == Outcome::Sent => {
            refused(reason, judgement.verdict.has(MONITOR))
        }
        _ => judgement,
    }
}

/// Why a call fails that the policy lets go: the number of a rule.
#[inline(always)]
fn reason_against<const HOOK: u32>(
    ctx: &SockAddrContext,
    to: &Destination,
    to_host: bool,
) -> Option<u32> {
    let socket = socket(ctx);
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    // Who makes a socket by a call is judged there. The kernel makes some by itself, for SMC and RxRPC say.
    let is_foreign = !is_home(cookie) && ALLOW_NETNS.load() == 0 && owner::of(socket).is_none();
    if connects(HOOK) && is_tcp(to.protocol) && !owner::note_connection(socket, cookie, to_host) {
        return Some(UNOWNED);
    }
    if is_foreign {
        return Some(FOREIGN_NETNS);
    }
    if to.protocol == Protocol::UDP
        && to.address.is_v4()
        && broadcasts()
        && owner::may_broadcast(socket)
        && !is_policy_followed()
    {
        return Some(UNFOLLOWED);
    }
    reason_against_socket(|| socket)
}

/// Whether any socket of the fence was let broadcast.
#[inline(always)]
fn broadcasts() -> bool {
    marks().is_none_or(|marks| marks.broadcasts != 0)
}

/// Whether the policy is true to the host, as far as somebody looked of late.
#[inline(always)]
fn is_policy_followed() -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let pulse = unsafe { PULSE.get_ptr(0).and_then(|pulse| pulse.as_ref()) };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    pulse.is_some_and(|pulse| is_followed(pulse.followed_ns, now))
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

/// Whether the hook of that number is one for connect().
const fn connects(hook: u32) -> bool {
    hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32
}

#[inline(always)]
fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::MPTCP
}
