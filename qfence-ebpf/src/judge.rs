//! From a destination to a verdict.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use qfence_common::{
    Action, Address, Hook, Path, Protocol, Verdict, Way,
    proof::{self, Token},
    verdict::{HOST, MONITOR},
};

use crate::{
    destination::Destination,
    maps::{DENY_RETVAL, PROOF},
    owner, peers,
    policy::{self, verdict},
    record::{Author, Refusal, hit, refuse, sight, traffic},
    socket::{local_address, local_port},
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
    let judgement = judge::<HOOK, _>(ctx, to);
    if connects(HOOK) {
        if judgement.passes() {
            traffic(Way::Sent, None);
            if is_tcp(to.protocol) {
                owner::note_connection(to.socket, judgement.verdict.has(HOST));
            }
        } else {
            traffic(Way::Refused, None);
        }
    }
    if judgement.action == Action::Allow {
        return PROCEED;
    }
    let source = (local_address(to.socket), local_port(to.socket));
    // SAFETY: the hook's own context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) };
    if judgement.refuse(HOOK, to, source, &Author::current(netns)) == PROCEED {
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
    pub(crate) action: Action,
    verdict: Verdict,
}

impl Judgement {
    /// Whether it goes on, allowed or only monitored.
    #[inline(always)]
    fn passes(&self) -> bool {
        self.action == Action::Allow || self.verdict.has(MONITOR)
    }

    /// Refuses the destination, unless it is only monitored; returns what the hook is to return.
    #[inline(always)]
    pub(crate) fn refuse(
        &self,
        hook: u32,
        to: &Destination,
        (source, source_port): (Address, u16),
        who: &Author,
    ) -> i32 {
        let what = Refusal {
            address: to.address,
            port: u32::from(to.port),
            protocol: to.protocol.0,
            hook,
            rule: self.verdict.rule(),
            source,
            source_port: u32::from(source_port),
        };
        let monitored = self.verdict.has(MONITOR);
        if monitored {
            sight(&what);
        }
        refuse(&what, who, monitored)
    }
}

/// The policy's word on a destination, but that a peer which spoke first may be answered.
///
/// The hook's number is a parameter of the type so that its name, in the trace, is a constant of each
/// program's rather than a table of pointers, which the loader could not relocate.
#[inline(always)]
pub(crate) fn judge<const HOOK: u32, C: EbpfContext>(ctx: &C, to: &Destination) -> Judgement {
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    let mut action = verdict.action();
    if action == Action::Deny && answers(to) {
        action = Action::Allow;
    } else {
        let is_call = HOOK < Hook::Egress as u32;
        hit(verdict.rule(), action, to.protocol, is_call);
    }
    debug!(
        ctx,
        "{}: {:i} port {} protocol {} {} by rule {}",
        const { hook_name(HOOK) },
        to.address,
        to.port,
        to.protocol.0,
        verdict_name(action),
        verdict.rule()
    );
    Judgement { action, verdict }
}

/// Whether the policy is only monitored; without one nothing is.
#[inline(always)]
pub(crate) fn monitors() -> bool {
    policy::flags().has(MONITOR)
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
pub(crate) fn of_address(address: Address) -> Verdict {
    verdict(Path::Address, address, Protocol::ANY, 0)
}

/// Whether this is an answer to a datagram that came from there.
///
/// A function of its own: what it has on the stack and what is put on record do not fit into one frame.
#[inline(never)]
fn answers(to: &Destination) -> bool {
    to.protocol == Protocol::UDP
        && peers::peer(to.socket, to.address, to.port).is_some_and(|peer| peers::spoke_first(&peer))
}

/// Of one length, so that the choice is one of pointers alone.
#[inline(always)]
const fn verdict_name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allowed",
        Action::Deny => "refused",
    }
}

const fn hook_name(number: u32) -> &'static str {
    match Hook::from_number(number) {
        Some(hook) => hook.name(),
        None => "unknown hook",
    }
}
