//! From a destination to a verdict.

pub(crate) mod peers;
pub(crate) mod policy;

use aya_ebpf::bindings::bpf_sock;
use qfence_common::{
    Action, Halves, LookupPath, Outcome, Protocol, Verdict, abi::Counter, verdict::MONITOR,
};

use crate::{
    account::count::{count, hit},
    maps::marks::marks,
    subject::{destination::Destination, owner},
};
use policy::{monitors, verdict};

/// What came of judging a destination.
pub(crate) struct Judgement {
    /// What is to become of it.
    pub(crate) outcome: Outcome,
    pub(crate) verdict: Verdict,
    /// Whether it goes on although the verdict denies it, as the answer to a peer that spoke first.
    pub(crate) is_reply: bool,
}

/// In a word: the judgement is a reply. Below it is the outcome, and below that the verdict.
const IS_REPLY: u64 = 1 << 40;

impl Judgement {
    /// In one word, as a global function returns it.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        let is_reply = if self.is_reply { IS_REPLY } else { 0 };
        is_reply | (self.outcome as u64) << u32::BITS | self.verdict.bits() as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "parts of it")]
    pub(crate) const fn unpack(word: u64) -> Self {
        Self {
            outcome: Outcome::of_number((word >> u32::BITS) as u8 as u32),
            verdict: Verdict::from_bits(word as u32),
            is_reply: word & IS_REPLY != 0,
        }
    }
}

/// Whether monitor mode alone let any socket be made.
#[inline(always)]
pub(crate) fn has_monitored_sockets() -> bool {
    marks().is_none_or(|marks| marks.monitored_sockets != 0)
}

/// Why what a whole socket sends is refused whatever its destination: monitor mode alone let it be made, and the policy is
/// enforced now. The number of a rule. To be asked where there [are such sockets](has_monitored_sockets).
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

/// The policy's word on a destination, of a call or else of a packet, but that a peer which spoke first may be answered
/// from `socket`.
#[inline(always)]
pub(crate) fn judge(
    to: &Destination,
    is_call: bool,
    socket: impl FnOnce() -> *mut bpf_sock,
) -> Judgement {
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    let is_denied = verdict.action() == Action::Deny;
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

/// What the policy has to say on an address, whatever the protocol: its flags are of use.
#[inline(always)]
pub(crate) fn of_address(address: Halves) -> Verdict {
    verdict(LookupPath::Address, address, Protocol::ANY, 0)
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
