//! Reasons against a call other than the policy, and what is noted for its socket.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_netns_cookie, bpf_ktime_get_boot_ns},
    programs::SockAddrContext,
};
use qfence_common::{
    Halves, Outcome, Protocol,
    pulse::is_followed,
    verdict::{FOREIGN_NETNS, HOST, MONITOR, UNFOLLOWED, UNOWNED},
};

use super::is_tcp;
use crate::{
    account::refuse::Rest,
    judge::{
        Judgement, has_monitored_sockets, own::call::qfence_note_connection, reason_against_socket,
        redirected::DNS, refused,
    },
    maps::{ALLOW_NETNS, PULSE, marks::marks},
    subject::{
        destination::{Destination, socket},
        netns::is_home,
        owner,
    },
};

/// Whether there is no reason against a call that the policy lets through, as far as that can be told without a function:
/// the conditions are those of [`reason_against`] for a socket with an owner, and what is to be noted is noted. Otherwise
/// the functions below find out.
#[inline(always)]
pub(super) fn has_nothing_against(ctx: &SockAddrContext, to: &Destination, judgement: u64) -> bool {
    to.protocol == Protocol::UDP
        && to.port != DNS
        && Judgement::outcome_of(judgement) == Outcome::Sent as u32
        && has_no_special_sockets()
        && owner::mark_other_port(socket(ctx))
}

/// Refuses a connect() if there is a reason other than the policy; otherwise returns the policy's judgement. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
pub(super) extern "C" fn qfence_object_to_connect(
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
pub(super) extern "C" fn qfence_object_to_send(
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
            let _ = owner::mark_other_port(socket(ctx));
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

/// Whether no socket of the fence was allowed to broadcast, and none exists only because of monitor mode.
#[inline(always)]
fn has_no_special_sockets() -> bool {
    marks().is_some_and(|marks| marks.broadcasts == 0 && marks.monitored_sockets == 0)
}

/// Whether any socket of the fence was allowed to broadcast.
#[inline(always)]
fn broadcasts() -> bool {
    marks().is_none_or(|marks| marks.broadcasts != 0)
}

/// Whether the policy was recently known to match the host.
#[inline(always)]
pub(in crate::hooks) fn is_policy_followed() -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let pulse = unsafe { PULSE.get_ptr(0).and_then(|pulse| pulse.as_ref()) };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    pulse.is_some_and(|pulse| is_followed(pulse.followed_ns, now))
}
