//! Judges frames that enter the host by a device: those of its guest.

use core::hint::cold_path;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use qfence_common::{
    Halves, Hook, LookupPath, Outcome, Payload,
    frame::{Device, EXCEPTION, EXCEPTION_MARK, MARK, MARKS_EXCEPTIONS, SLOT, TAG, ethernet::ARP},
    verdict::UNPARSED,
};

use super::{DROP, NEXT, answer::answer};
use crate::{
    account::{
        flows,
        frame::{Rest, refuse_frame, tally, tally_on},
        trace::trace,
    },
    judge::frame::{
        FrameJudgement, Way, arp_target, device, judge_frame_to, qfence_judge_arp,
        reason_against_frame,
    },
    subject::{
        destination::Destination,
        frame::{device_index, ethertype, macs, packet, packet_length},
    },
};

const FRAME: u32 = Hook::Frame as u32;

/// Judges a frame. What is refused is recorded, and answered if it may be. What goes on is tagged: the program where the
/// host receives packets drops it there, unless an exception applies.
#[inline(always)]
pub(crate) fn judge_frame(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let kind = ethertype(skb);
    let Some(device) = device(device_index(skb)) else {
        cold_path();
        let judgement = FrameJudgement::of_unknown_device();
        refuse(skb, judgement, Halves::NONE, Rest::of_ethertype(kind));
        return DROP;
    };
    let against = reason_against_frame(skb, kind, device);
    let mut payload = Payload::UNKNOWN;
    let (judgement, to, rest) = if against != 0 {
        cold_path();
        let judgement = FrameJudgement::against(against);
        (judgement, Halves::NONE, Rest::of_ethertype(kind))
    } else if kind == ARP {
        cold_path();
        let judgement = FrameJudgement::unpack(qfence_judge_arp(skb, macs(skb).from));
        (judgement, arp_target(skb), Rest::of_ethertype(kind))
    } else if let Some(packet) = packet(skb) {
        let to = packet.destination;
        payload = packet.payload;
        let judgement = judge_frame_to(skb, kind, to, payload, device.flags);
        (judgement, to, Rest::of_payload(payload))
    } else {
        cold_path();
        let judgement = FrameJudgement::against(UNPARSED);
        (judgement, Halves::NONE, Rest::of_ethertype(kind))
    };
    if payload.is_known() {
        note_decision(to, payload, judgement);
    }
    match judgement.way {
        Way::Refused => {
            cold_path();
            refuse(skb, judgement, to, rest);
            return if judgement.may_be_answered {
                answer(skb, payload, judgement.is_complete, device.flags)
            } else {
                DROP
            };
        }
        Way::Monitored => {
            cold_path();
            tally(skb, Outcome::SentMonitored, rest.protocol, true);
            refuse_frame(skb, to, judgement.verdict, rest);
        }
        Way::Elsewhere | Way::Anywhere => {
            if !judgement.is_counted {
                cold_path();
                tally_on(skb, Outcome::Sent, rest.protocol, judgement.is_decision);
            }
            if payload.is_known() {
                let rule = judgement.verdict.rule();
                flows::note_frame_sent(to, payload, rule, packet_length(skb));
            }
        }
    }
    let exception = match judgement.way {
        Way::Elsewhere => 0,
        _ => EXCEPTION,
    };
    tag(skb, device, exception);
    NEXT
}

/// Logs the decision on a packet, in the object for tracing.
#[inline(always)]
fn note_decision(to: Halves, payload: Payload, judgement: FrameJudgement) {
    let to = Destination {
        address: to,
        port: payload.destination_port(),
        protocol: payload.protocol(),
        path: LookupPath::Address,
    };
    let outcome = match judgement.way {
        Way::Refused => Outcome::Refused,
        Way::Monitored => Outcome::SentMonitored,
        Way::Elsewhere | Way::Anywhere => Outcome::Sent,
    };
    trace::<FRAME>(&to, outcome, judgement.verdict);
}

/// Counts and records a refused frame.
#[inline(always)]
fn refuse(skb: *mut __sk_buff, judgement: FrameJudgement, to: Halves, rest: Rest) {
    tally(skb, Outcome::Refused, rest.protocol, true);
    refuse_frame(skb, to, judgement.verdict, rest);
}

/// Tags a frame in two places: others change the mark, and few change the other one.
#[inline(always)]
fn tag(skb: *mut __sk_buff, device: Device, exception: u16) {
    let index = u32::from(TAG | exception) | device.slot & u32::from(SLOT);
    let mark = if exception != 0 && device.flags & MARKS_EXCEPTIONS != 0 {
        EXCEPTION_MARK
    } else {
        MARK
    };
    // SAFETY: the hook's own context; the verifier checks each access.
    let others = unsafe { (*skb).mark } & !(MARK | EXCEPTION_MARK);
    // SAFETY: as above.
    unsafe { (*skb).mark = others | mark };
    // SAFETY: as above.
    unsafe { (*skb).tc_index = index };
}
