//! The hooks for calls with a destination: connect(2), and sending to an address.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockAddrContext,
};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Protocol, Verdict,
    proof::{self, Token},
    pulse::is_followed,
    tally::Class,
    verdict::{FOREIGN_NETNS, HOST, MONITOR, UNFOLLOWED, UNOWNED},
};

use super::lead;
use crate::{
    account::{
        PROCEED,
        count::tally_call,
        fail_with, flows,
        refuse::{Rest, refuse_connect, refuse_send},
        trace::trace,
    },
    judge::{
        Judgement, has_monitored_sockets, is_own_loopback, judge,
        own::{qfence_note_connection, qfence_own_connection, qfence_own_datagram},
        policy::{knows_self, verdict},
        reason_against_socket,
        redirected::DNS,
        refused,
    },
    maps::{ALLOW_NETNS, DENY_RETVAL, PROOF, PULSE, marks::marks},
    subject::{
        destination::{Destination, socket},
        netns::is_home,
        owner,
    },
};

/// Judges the destination of a call at the hook with number `HOOK`. Returns the return value of the hook.
#[inline(always)]
pub(crate) fn judge_call<const HOOK: u32>(ctx: &SockAddrContext, to: &Destination) -> i32 {
    if Token(PROOF.load()).is(to.address, to.port) {
        return fail_with(-proof::ERRNO);
    }
    let rest = Rest {
        hook: HOOK,
        protocol: to.protocol,
        port: to.port,
        source_port: 0,
    };
    let query = lead::judge_query(ctx, to, rest);
    if query == lead::AS_IT_IS
        && connects(HOOK)
        && to.protocol == Protocol::UDP
        && asks_for_source::<HOOK>(to)
    {
        let Halves { upper, lower } = to.address;
        match qfence_judge_unspecified(ctx.sock_addr, upper, lower, to.port.into()) {
            JUDGED => {}
            TO_NOBODY => {
                lead_to_nobody(ctx);
                return PROCEED;
            }
            _ => return PROCEED,
        }
    }
    let Halves { upper, lower } = to.address;
    let judgement = match (query, connects(HOOK)) {
        (lead::AS_IT_IS, true) => qfence_judge_connect(ctx.sock_addr, upper, lower, rest.pack()),
        (lead::AS_IT_IS, false) => qfence_judge_send(ctx.sock_addr, upper, lower, rest.pack()),
        (_, true) => qfence_object_to_connect(ctx.sock_addr, query, upper, lower, rest.pack()),
        (_, false) => qfence_object_to_send(ctx.sock_addr, query, upper, lower, rest.pack()),
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
            flows::note_call(to.address, to.protocol, to.port, rule);
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

/// The results for a UDP connect() that asks for a source address: it is judged like any other; it goes to port 0; it is left as
/// it is.
const JUDGED: u32 = 0;
const TO_NOBODY: u32 = 1;
const AS_IT_IS: u32 = 2;

/// Judges a UDP connect() to the unspecified address, which is the host's loopback, or to port 0. C libraries connect sockets to the
/// addresses that they have found, ask for the source address, and send nothing (getaddrinfo(3) sorts by it, RFC 6724). For a
/// listener on all addresses, that is the unspecified one. So the call succeeds, and is not recorded, but the socket leads to
/// port 0, to which nothing can be bound (`inet_get_port` chooses another): PPPoL2TP sends by a connected UDP socket of the
/// process, and such a packet passes no egress program. What the process sends by the socket passes it, and is refused.
///
/// A denied call that is only monitored is left as it is: what is sent is recorded. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_unspecified(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    port: u32,
) -> u32 {
    let to = Destination {
        address: Halves { upper, lower },
        port: u16::try_from(port).unwrap_or(0),
        protocol: Protocol::UDP,
        path: LookupPath::Address,
    };
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    if verdict.action() == Action::Allow
        || is_own_loopback(&to, verdict, true, || socket(&SockAddrContext::new(ctx)))
    {
        return JUDGED;
    }
    // Both lead to another port than the nameservers' (`judge/redirected.rs`).
    owner::mark_other_port(socket(&SockAddrContext::new(ctx)));
    if verdict.has(MONITOR) {
        return AS_IT_IS;
    }
    TO_NOBODY
}

/// Whether a UDP connect() only asks for a source address, as far as its destination tells. glibc connects to port 0 if the
/// look-up has no service. What is sent by a socket that is connected to a v4-mapped address is not judged by itself
/// (`udpv6_sendmsg` calls `udp_sendmsg`), so such a connect() is judged like any other.
#[inline(always)]
fn asks_for_source<const HOOK: u32>(to: &Destination) -> bool {
    let is_of_family = HOOK == Hook::Connect4 as u32 || !to.address.is_v4();
    is_of_family && (to.address.is_unspecified() || to.port == 0)
}

/// Changes the port of a call's destination to 0.
#[inline(always)]
fn lead_to_nobody(ctx: &SockAddrContext) {
    // SAFETY: the hook's own context; the verifier permits this write.
    let port = unsafe { &raw mut (*ctx.sock_addr).user_port };
    // SAFETY: as above. It is volatile, so that the compiler keeps the width.
    unsafe { port.write_volatile(0) };
}

// A program has one of the next two functions only: the verifier would check for each what only the other does.

/// Judges a connect(), given its address and the packed rest. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_connect(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    rest: u64,
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
    let judgement = judge_by_policy(ctx, Halves { upper, lower }, rest, own);
    qfence_object_to_connect(ctx, judgement, upper, lower, rest)
}

/// Judges the sending of a datagram to an address, given the same. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_send(ctx: *mut bpf_sock_addr, upper: u64, lower: u64, rest: u64) -> u64 {
    let own = |protocol, verdict: Verdict| match protocol {
        Protocol::UDP if knows_self() => {
            qfence_own_datagram(ctx, upper, lower, rest, verdict.bits())
        }
        _ => 0,
    };
    let judgement = judge_by_policy(ctx, Halves { upper, lower }, rest, own);
    qfence_object_to_send(ctx, judgement, upper, lower, rest)
}

#[inline(always)]
fn judge_by_policy(
    ctx: *mut bpf_sock_addr,
    address: Halves,
    rest: u64,
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
    judge(&to, true, || socket(&ctx), |verdict| own(protocol, verdict))
}

/// Refuses a connect() if there is a reason other than the policy; otherwise returns the policy's judgement. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_object_to_connect(
    ctx: *mut bpf_sock_addr,
    judgement: u64,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u64 {
    object::<true>(ctx, judgement, Halves { upper, lower }, rest)
}

/// The same for the sending of a datagram.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_object_to_send(
    ctx: *mut bpf_sock_addr,
    judgement: u64,
    upper: u64,
    lower: u64,
    rest: u64,
) -> u64 {
    object::<false>(ctx, judgement, Halves { upper, lower }, rest)
}

#[inline(always)]
fn object<const CONNECTS: bool>(
    ctx: *mut bpf_sock_addr,
    word: u64,
    address: Halves,
    rest: u64,
) -> u64 {
    let judgement = Judgement::unpack(word);
    if judgement.outcome == Outcome::Refused {
        return word;
    }
    let ctx = SockAddrContext::new(ctx);
    match reason_against::<CONNECTS>(&ctx, &judgement, address, Rest::unpack(rest)) {
        Some(reason) if judgement.outcome == Outcome::Sent => {
            refused(reason, judgement.verdict.has(MONITOR)).pack()
        }
        _ => word,
    }
}

/// Returns the number of the rule by which a call is refused although the policy allows it. `CONNECTS` is whether the call is
/// connect().
#[inline(always)]
fn reason_against<const CONNECTS: bool>(
    ctx: &SockAddrContext,
    judgement: &Judgement,
    address: Halves,
    Rest { protocol, port, .. }: Rest,
) -> Option<u32> {
    let to_host = judgement.verdict.has(HOST);
    // This must precede the note of the connection, because the note gives the socket an owner.
    let is_foreign = ALLOW_NETNS.load() == 0 && qfence_is_foreign(ctx.sock_addr) != 0;
    // A connection to a listener of the fence's own was noted with the listener.
    if CONNECTS
        && is_tcp(protocol)
        && !judgement.is_own
        && qfence_note_connection(ctx.sock_addr, to_host.into(), 0) == 0
    {
        return Some(UNOWNED);
    }
    if is_foreign {
        return Some(FOREIGN_NETNS);
    }
    if protocol == Protocol::UDP {
        // A note about a call that is then refused for another reason does no harm.
        if port != DNS {
            owner::mark_other_port(socket(ctx));
        } else if to_host {
            owner::mark_question(socket(ctx));
        }
        if address.is_v4()
            && broadcasts()
            && owner::may_broadcast(socket(ctx))
            && !is_policy_followed()
        {
            return Some(UNFOLLOWED);
        }
    }
    if has_monitored_sockets() {
        match qfence_reason_against_call(ctx.sock_addr) {
            0 => {}
            reason => return Some(reason),
        }
    }
    None
}

// The functions below are global for the sake of the verifier: see `judge/policy.rs`.

/// Whether a socket is outside the fence's home and was not made by a call; calls are judged when the socket is
/// created. The kernel creates such sockets itself, for instance for SMC and RxRPC. Returns 0 or 1.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_is_foreign(ctx: *mut bpf_sock_addr) -> u32 {
    let ctx = SockAddrContext::new(ctx);
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    (!is_home(cookie) && owner::of(socket(&ctx)).is_none()).into()
}

/// Returns the number of the rule by which a call is refused because only monitor mode let its socket be created; or 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reason_against_call(ctx: *mut bpf_sock_addr) -> u32 {
    reason_against_socket(|| socket(&SockAddrContext::new(ctx))).unwrap_or(0)
}

/// Whether any socket of the fence was allowed to broadcast.
#[inline(always)]
fn broadcasts() -> bool {
    marks().is_none_or(|marks| marks.broadcasts != 0)
}

/// Whether the policy was recently known to match the host.
#[inline(always)]
pub(super) fn is_policy_followed() -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let pulse = unsafe { PULSE.get_ptr(0).and_then(|pulse| pulse.as_ref()) };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    pulse.is_some_and(|pulse| is_followed(pulse.followed_ns, now))
}

/// Whether the hook with this number is a hook for connect().
const fn connects(hook: u32) -> bool {
    hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32
}

#[inline(always)]
pub(super) fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::MPTCP
}
