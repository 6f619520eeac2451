//! From a destination to a verdict.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_set_retval},
    programs::SockAddrContext,
};
use qfence_common::{
    Action, Halves, Hook, Outcome, Path, Protocol, Verdict,
    abi::Counter,
    proof::{self, Token},
    pulse::is_followed,
    tally::Class,
    verdict::{FOREIGN_NETNS, HOST, MONITOR, UNFOLLOWED, UNOWNED},
};

use crate::{
    count::{count, hit, tally_call},
    destination::{Destination, socket},
    maps::{ALLOW_NETNS, DENY_RETVAL, PROOF, PULSE},
    marks::marks,
    netns::is_home,
    owner, peers,
    policy::{monitors, verdict},
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

/// Why what a whole socket sends is refused whatever its destination: monitor mode alone let it be made, and enforces now.
/// The number of a rule.
#[inline(always)]
pub(crate) fn reason_against_socket(socket: impl FnOnce() -> *mut bpf_sock) -> Option<u32> {
    let has_any = marks().is_none_or(|marks| marks.monitored_sockets != 0);
    if !has_any || monitors() {
        return None;
    }
    let socket = socket();
    if socket.is_null() {
        return None;
    }
    owner::reason_against(socket)
}

/// The judgement of what is refused for a reason of its own.
#[inline(always)]
pub(crate) fn refused(reason: u32, is_monitored: bool) -> Judgement {
    let flags = if is_monitored { MONITOR } else { 0 };
    Judgement {
        outcome: denied(is_monitored),
        verdict: Verdict::new(Action::Deny, reason).with(flags),
        is_reply: false,
    }
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

/// What came of judging a destination.
pub(crate) struct Judgement {
    /// What is to become of it.
    pub(crate) outcome: Outcome,
    pub(crate) verdict: Verdict,
    /// Whether it goes on although the verdict denies it, as the answer to a peer that spoke first.
    pub(crate) is_reply: bool,
}

/// The policy's word on a destination, but that a peer which spoke first may be answered from `socket`.
///
/// The hook's number is a parameter of the type, so that it is a constant of each program's.
#[inline(always)]
pub(crate) fn judge<const HOOK: u32>(
    to: &Destination,
    socket: impl FnOnce() -> *mut bpf_sock,
) -> Judgement {
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    let is_denied = verdict.action() == Action::Deny;
    let is_call = HOOK < Hook::Egress as u32;
    let is_reply = is_denied && answers(to, socket());
    if is_reply {
        count(if is_call {
            Counter::ReplyCalls
        } else {
            Counter::ReplyPackets
        });
    } else {
        hit(verdict.rule(), is_call);
    }
    let outcome = if is_denied && !is_reply {
        denied(verdict.has(MONITOR))
    } else {
        Outcome::Sent
    };
    Judgement {
        outcome,
        verdict,
        is_reply,
    }
}

/// What becomes of what is denied.
#[inline(always)]
const fn denied(is_monitored: bool) -> Outcome {
    if is_monitored {
        Outcome::SentMonitored
    } else {
        Outcome::Refused
    }
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
