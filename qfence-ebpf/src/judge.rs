//! From a destination to a verdict.

use aya_ebpf::{
    EbpfContext, btf_maps::lpm_trie::Key, helpers::bpf_set_retval, programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use qfence_common::{
    Action, Address, Entry, Hook, Protocol,
    address::{self, KEY_BITS, Path},
    decide,
    entry::{HOST, MONITOR},
    proof::{self, Token},
};

use crate::{
    destination::Destination,
    maps::{DENY_RETVAL, POLICY, PROOF},
    owner, peers,
    record::{Author, Refusal, hit, refuse, sight},
    tree::Trees,
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
    if judgement.passes() && connects(HOOK) && is_tcp(to.protocol) {
        owner::note_connection(to.socket, judgement.flags & HOST != 0);
    }
    if judgement.action == Action::Allow {
        return PROCEED;
    }
    if judgement.refuse(HOOK, to, &Author::current()) == PROCEED {
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
    rule: u32,
    /// Those of the entry.
    flags: u32,
}

impl Judgement {
    /// Whether it goes on, allowed or only monitored.
    #[inline(always)]
    fn passes(&self) -> bool {
        self.action == Action::Allow || self.flags & MONITOR != 0
    }

    /// Refuses the destination, unless it is only monitored; returns what the hook is to return.
    #[inline(always)]
    pub(crate) fn refuse(&self, hook: u32, to: &Destination, who: &Author) -> i32 {
        let what = Refusal {
            address: to.address,
            port: u32::from(to.port),
            protocol: to.protocol.0,
            hook,
            rule: self.rule,
        };
        let monitored = self.flags & MONITOR != 0;
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
    let entry = entry(to.path, to.address);
    let mut decision = decide(entry, &Trees::of(entry), to.protocol, to.port);
    if decision.action == Action::Deny && answers(to) {
        decision.action = Action::Allow;
    } else {
        hit(decision.rule, HOOK < Hook::Egress as u32);
    }
    debug!(
        ctx,
        "{}: {:i} port {} protocol {} {} by rule {}",
        const { hook_name(HOOK) },
        to.address,
        to.port,
        to.protocol.0,
        verdict_name(decision.action),
        decision.rule
    );
    Judgement {
        action: decision.action,
        rule: decision.rule,
        flags: entry.map_or(0, |entry| entry.flags),
    }
}

/// Whether the policy is only monitored; without one nothing is. All entries say the same.
#[inline(always)]
pub(crate) fn monitors() -> bool {
    entry(Path::Address, [0; 16]).is_some_and(|entry| entry.has(MONITOR))
}

/// Whether the hook of that number is one for connect().
const fn connects(hook: u32) -> bool {
    hook == Hook::Connect4 as u32 || hook == Hook::Connect6 as u32
}

#[inline(always)]
fn is_tcp(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::MPTCP
}

/// The policy's entry for an address. No policy in the slot, or no prefix that holds the address (the
/// compiler always writes `::/0` for each path), is `None`, which denies.
#[inline(always)]
pub(crate) fn entry<'a>(path: Path, address: Address) -> Option<&'a Entry> {
    let key = Key::new(KEY_BITS, address::key(path, address));
    POLICY.get(0).and_then(|trie| trie.get(&key))
}

/// Whether this is an answer to a datagram that came from there.
#[inline(always)]
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
