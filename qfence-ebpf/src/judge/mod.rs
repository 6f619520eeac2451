//! Determines the verdict on a destination.

pub(crate) mod frame;
pub(crate) mod own;
pub(crate) mod peers;
pub(crate) mod policy;
pub(crate) mod redirected;
mod room;
pub(crate) mod sent;

use aya_ebpf::bindings::bpf_sock;
use qfence_common::{
    Action, Halves, LookupPath, Outcome, Protocol, Verdict,
    abi::Counter,
    own::{LET_THROUGH, PAIR},
    verdict::{HOST, MANY, MONITOR, POD},
};

use crate::{
    account::count::{count, hit},
    maps::marks::marks,
    subject::{destination::Destination, netns::has_inside_sockets, owner},
};
use policy::{monitors, verdict, verdict_of_tree};

/// The result of judging a destination.
pub(crate) struct Judgement {
    /// The outcome of the call or packet.
    pub(crate) outcome: Outcome,
    pub(crate) verdict: Verdict,
    /// Whether it is allowed by the reply exception although the verdict denies it. Without it, a verdict that denies is
    /// also overruled if the destination is the loopback of a namespace that was made in the fence.
    pub(crate) is_reply: bool,
    /// Whether it is allowed because it leads to a socket of the fence's own, although the verdict denies it.
    pub(crate) is_own: bool,
}

/// The bits of `is_reply` and `is_own` in a packed judgement. The bits below them are the outcome, and below that the
/// verdict.
const IS_REPLY: u64 = 1 << 40;
const IS_OWN: u64 = 1 << 41;

impl Judgement {
    /// Packs the judgement into one word, the return value of a global function.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        let is_reply = if self.is_reply { IS_REPLY } else { 0 };
        let is_own = if self.is_own { IS_OWN } else { 0 };
        is_reply | is_own | (self.outcome as u64) << u32::BITS | self.verdict.bits() as u64
    }

    /// That of what a rule allows.
    #[inline(always)]
    pub(crate) const fn allowed(verdict: Verdict) -> Self {
        Self {
            outcome: Outcome::Sent,
            verdict,
            is_reply: false,
            is_own: false,
        }
    }

    /// The verdict in a packed judgement.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a part of it")]
    pub(crate) const fn verdict_of(word: u64) -> Verdict {
        Verdict::from_bits(word as u32)
    }

    /// The number of the outcome in a packed judgement.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits of it")]
    pub(crate) const fn outcome_of(word: u64) -> u32 {
        (word >> u32::BITS) as u8 as u32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            outcome: Outcome::of_number(Self::outcome_of(word)),
            verdict: Verdict::from_bits(word as u32),
            is_reply: word & IS_REPLY != 0,
            is_own: word & IS_OWN != 0,
        }
    }
}

/// Whether any socket exists only because of monitor mode.
#[inline(always)]
pub(crate) fn has_monitored_sockets() -> bool {
    marks().is_none_or(|marks| marks.monitored_sockets != 0)
}

/// Returns the number of the rule by which everything that a full socket sends is refused: only monitor mode let the
/// socket be created, and the policy is enforced now. Needed only if there [are such sockets](has_monitored_sockets).
#[inline(always)]
pub(crate) fn reason_against_socket(socket: impl FnOnce() -> *mut bpf_sock) -> Option<u32> {
    if monitors() {
        return None;
    }
    let socket = socket();
    if socket.is_null() {
        return None;
    }
    owner::reason_against(socket)
}

/// Returns the judgement of a refusal for a reason other than the policy's rules.
#[inline(always)]
pub(crate) fn refused(reason: u32, is_monitored: bool) -> Judgement {
    let flags = if is_monitored { MONITOR } else { 0 };
    Judgement {
        outcome: denied(is_monitored),
        verdict: Verdict::new(Action::Deny, reason).with(flags),
        is_reply: false,
        is_own: false,
    }
}

/// Judges a destination of a call, or else of a packet, by the policy, by the reply exception for the peers of `socket`,
/// by its network namespace, and by `own`: the flag in [`qfence_common::own`] by which it is let through to a socket of the
/// fence's own, or 0. That is asked only if it is the host and denied. Returns a packed [`Judgement`].
#[inline(always)]
pub(crate) fn judge(
    to: &Destination,
    is_call: bool,
    socket: impl Fn() -> *mut bpf_sock,
    own: impl FnOnce(Verdict) -> u32,
) -> u64 {
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    judge_verdict(to, verdict, is_call, socket, own)
}

/// The same, given the policy's verdict.
#[inline(always)]
pub(crate) fn judge_verdict(
    to: &Destination,
    verdict: Verdict,
    is_call: bool,
    socket: impl Fn() -> *mut bpf_sock,
    own: impl FnOnce(Verdict) -> u32,
) -> u64 {
    let mut facts = if is_call { OF_A_CALL } else { 0 };
    if verdict.action() == Action::Deny && !is_own_loopback(to, verdict, is_call, &socket) {
        facts |= DENIED;
        if answers(to, socket()) {
            facts |= ANSWERS;
        } else if verdict.has(HOST) && !verdict.has(MANY) {
            facts |= own(verdict) & LET_THROUGH;
        }
    }
    qfence_settle(verdict.bits(), facts)
}

/// What is known of a destination besides the verdict: it is that of a call; the verdict denies it, and applies to it; it is
/// a peer. The flags in [`LET_THROUGH`] are among these bits.
const OF_A_CALL: u32 = 1;
const DENIED: u32 = 1 << 1;
const ANSWERS: u32 = 1 << 2;

const _: () = assert!(LET_THROUGH & (OF_A_CALL | DENIED | ANSWERS) == 0);

/// Counts a judgement on a destination, and returns it packed. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_settle(verdict: u32, facts: u32) -> u64 {
    let verdict = Verdict::from_bits(verdict);
    let (is_call, is_denied) = (facts & OF_A_CALL != 0, facts & DENIED != 0);
    let (is_reply, is_own) = (facts & ANSWERS != 0, facts & LET_THROUGH != 0);
    if is_reply {
        count(if is_call {
            Counter::ReplyCalls
        } else {
            Counter::ReplyPackets
        });
    } else if !is_own && (is_denied || verdict.action() == Action::Allow) {
        hit(verdict.rule(), is_call);
    } else if facts & PAIR == 0
        && let Some(rule) = verdict.self_rule()
    {
        hit(rule, is_call);
    }
    let outcome = if is_denied && !is_reply && !is_own {
        denied(verdict.has(MONITOR))
    } else {
        Outcome::Sent
    };
    Judgement {
        outcome,
        verdict,
        is_reply,
        is_own,
    }
    .pack()
}

/// Whether the destination of a call, or else of a packet, is the loopback of a network namespace that was made in the
/// fence. That is not the host's: nobody but the fence is in it. A packet must leave through the loopback device, whatever
/// its address: a route can send 127.0.0.1 elsewhere.
///
/// The same holds for the namespace of a workload, if the verdict has [`POD`]. There, a call may name any address of the
/// namespace.
#[inline(always)]
pub(crate) fn is_own_loopback(
    to: &Destination,
    verdict: Verdict,
    is_call: bool,
    socket: impl Fn() -> *mut bpf_sock,
) -> bool {
    let in_pod = verdict.has(POD);
    if !in_pod && !has_inside_sockets() {
        return false;
    }
    if to.path != LookupPath::Loopback && !(is_call && (in_pod || to.address.is_loopback())) {
        return false;
    }
    let socket = socket();
    !socket.is_null() && owner::is_inside(socket, in_pod)
}

/// Returns the outcome of a denied call or packet.
#[inline(always)]
pub(crate) const fn denied(is_monitored: bool) -> Outcome {
    if is_monitored {
        Outcome::SentMonitored
    } else {
        Outcome::Refused
    }
}

/// Returns the policy's verdict on an address without a protocol. Only its flags matter.
#[inline(always)]
pub(crate) fn of_address(address: Halves) -> Verdict {
    verdict_of_tree(LookupPath::Address, address, Protocol::ANY, 0)
}

/// Whether this is a reply to a datagram that came from this destination.
#[inline(always)]
fn answers(to: &Destination, socket: *mut bpf_sock) -> bool {
    to.protocol == Protocol::UDP && has_spoken(socket, to.address.upper, to.address.lower, to.port)
}

/// Whether a peer of a socket sent a datagram recently.
///
/// A function of its own, because its stack and that of tracing do not fit in one frame.
#[inline(never)]
fn has_spoken(socket: *mut bpf_sock, upper: u64, lower: u64, port: u16) -> bool {
    peers::peer(socket, Halves { upper, lower }, port).is_some_and(|peer| peers::spoke_first(&peer))
}
