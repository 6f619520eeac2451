//! Judges frames of guests.

mod control;
mod guest;
mod judgement;
mod neighbours;

use core::hint::cold_path;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_boot_ns};
use qfence_common::{
    Action, Halves, LookupPath, Payload, Protocol,
    frame::{
        control::{IGMP, asks_dhcp},
        ethernet::IPV6,
    },
    packet::tcp_data,
    peer::ANSWERS_FOR_NS,
    verdict::{CHECKSUM, HOST, MANY, MONITOR},
};

use crate::{
    account::count::{hit, hit_by_frame},
    judge::{
        peers::changed_ns,
        policy::{judges_standing, verdict_at_once},
        sent::qfence_host_began,
    },
    subject::{
        frame::{Frame, packet_length, place},
        left::left,
    },
};
use control::{ORDINARY, qfence_judge_control, qfence_judge_dhcp};
pub(crate) use guest::{device, reason_against_frame};
use judgement::NO_RULE;
pub(crate) use judgement::{FrameJudgement, Way};
pub(crate) use neighbours::{arp_target, qfence_judge_arp};

/// Judges an IP packet by its destination and its payload. Every segment of TCP is judged, so that a change of the policy
/// also ends connections. Inlined, because a call takes a tenth of the time that most frames take.
#[inline(always)]
pub(crate) fn judge_frame_to(
    skb: *mut __sk_buff,
    kind: u32,
    address: Halves,
    payload: Payload,
    flags: u32,
) -> FrameJudgement {
    let left = left(skb);
    if left.is_some() && !left.may_be_written(place(skb)) {
        cold_path();
        return FrameJudgement::against(CHECKSUM);
    }
    let Halves { upper, lower } = address;
    let is_dhcp = asks_dhcp(kind == IPV6, payload);
    let control = match payload.protocol() {
        Protocol::ICMP | Protocol::ICMPV6 | IGMP => {
            cold_path();
            qfence_judge_control(skb, upper, lower, payload.bits())
        }
        Protocol::UDP if is_dhcp => {
            cold_path();
            qfence_judge_dhcp(skb, upper, lower, flags)
        }
        _ => ORDINARY,
    };
    let judgement = if control == ORDINARY {
        by_policy(skb, address, payload)
    } else {
        FrameJudgement::unpack(control)
    };
    FrameJudgement {
        is_complete: !left.is_some(),
        ..judgement
    }
}

#[inline(always)]
fn by_policy(skb: *mut __sk_buff, address: Halves, payload: Payload) -> FrameJudgement {
    let (protocol, port) = (payload.protocol(), payload.destination_port());
    let verdict = verdict_at_once(LookupPath::Address, address, protocol, port);
    let is_decision = !payload.continues_tcp();
    if verdict.action() == Action::Allow {
        let passes = protocol == Protocol::UDP;
        let is_counted = is_decision && hit_by_frame(verdict.rule(), passes, packet_length(skb));
        // The host also receives what is for many. Under a policy that is only monitored, nothing is to be dropped later.
        let reaches_host = verdict.has(HOST) || verdict.has(MANY) || verdict.has(MONITOR);
        return FrameJudgement {
            way: if reaches_host {
                Way::Anywhere
            } else {
                Way::Elsewhere
            },
            verdict,
            may_be_answered: false,
            is_decision,
            is_counted,
            is_complete: false,
        };
    }
    cold_path();
    let Halves { upper, lower } = address;
    if verdict.has(HOST)
        && !verdict.has(MANY)
        && qfence_host_began(skb, upper, lower, payload.bits()) != 0
    {
        return FrameJudgement {
            is_decision,
            ..FrameJudgement::by_exception(Way::Anywhere, NO_RULE)
        };
    }
    if payload.resets_tcp() && !verdict.has(HOST) && qfence_may_reset(skb) != 0 {
        return FrameJudgement {
            is_decision: false,
            ..FrameJudgement::by_exception(Way::Elsewhere, NO_RULE)
        };
    }
    hit(verdict.rule(), false);
    FrameJudgement {
        way: if verdict.has(MONITOR) {
            Way::Monitored
        } else {
            Way::Refused
        },
        verdict,
        may_be_answered: !verdict.has(MANY),
        is_decision: true,
        is_counted: false,
        is_complete: false,
    }
}

/// Whether a segment that resets a connection may go to where the policy denies: for a while after a change of the policy,
/// so that the remote end of a connection that the change has ended learns of it. It must carry nothing. Returns 0 or 1.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_may_reset(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let is_recent = judges_standing() && now < changed_ns().saturating_add(ANSWERS_FOR_NS);
    let is_empty = tcp_data(&Frame(skb), packet_length(skb)) == Some(0);
    (is_recent && is_empty).into()
}
