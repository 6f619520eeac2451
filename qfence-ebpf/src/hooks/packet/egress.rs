//! Judges outgoing packets.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Payload, Protocol, Verdict,
    abi::Counter,
    packet::{parse, read_addresses},
    tally::Class,
    verdict::{HOST, MANY, UNPARSED},
};

use super::{
    decision::note_decision, is_loopback, rest, return_value, standing::qfence_carries_on,
};
use crate::{
    account::{
        count::{count, hit_by_packet, tally_packet},
        flows,
        refuse::refuse_packet,
        syn::qfence_report_syn,
    },
    hooks::lead::asks,
    judge::{
        Judgement, has_monitored_sockets, judge,
        own::packet::{qfence_own_packet, qfence_own_syn},
        peers,
        policy::{judges_standing, knows_self, monitors, verdict},
        reason_against_socket,
        redirected::qfence_judged_port,
        refused,
    },
    maps::ALLOW_RAW,
    subject::{
        destination::Destination,
        skb::{Skb, whole_socket},
    },
};

const EGRESS: u32 = Hook::Egress as u32;

/// Judges an outgoing packet. Through the loopback device it reaches the host, whatever its address. Through another
/// device the address decides.
#[inline(always)]
pub(crate) fn judge_egress(ctx: &SkBuffContext) -> i32 {
    let (to, payload) = match parse(&Skb(ctx.skb.skb)) {
        Some(packet) => (packet.destination, packet.payload),
        None => (Halves::NONE, Payload::UNKNOWN),
    };
    let outcome = if goes_out(ctx, to, payload) {
        Outcome::Sent as u32
    } else {
        qfence_judge_leaving(ctx.skb.skb, to.upper, to.lower, payload.bits())
    };
    if outcome == Outcome::Sent as u32 {
        flows::note_sent(ctx, to, payload);
    }
    return_value(outcome)
}

/// Whether an outgoing packet leaves for another machine, by a rule or because it continues a connection, and there is nothing
/// else to find out or to note; it is counted then. Such are most packets, and they take no other function than the one
/// for the verdict. The others are judged from the beginning.
#[inline(always)]
fn goes_out(ctx: &SkBuffContext, address: Halves, payload: Payload) -> bool {
    if !payload.is_known() || is_loopback(ctx) || has_monitored_sockets() {
        return false;
    }
    if payload.continues_tcp() {
        let is_judged = ALLOW_RAW.load() != 0 || judges_standing();
        if !is_judged {
            tally_packet(Outcome::Sent as u32, Class::Tcp as u32, false, ctx.len());
        }
        return !is_judged;
    }
    let to = Destination {
        address,
        port: payload.destination_port(),
        protocol: payload.protocol(),
        path: LookupPath::Address,
    };
    let verdict = verdict(to.path, to.address, to.protocol, to.port);
    if verdict.action() == Action::Deny || verdict.has(HOST | MANY) {
        return false;
    }
    note_decision::<EGRESS>(&to, Judgement::allowed(verdict).pack());
    if !hit_by_packet(verdict.rule(), to.protocol == Protocol::UDP, ctx.len()) {
        let class = Class::number(to.protocol);
        tally_packet(Outcome::Sent as u32, class, true, ctx.len());
    }
    true
}

/// Judges an outgoing packet by its destination and its payload. Returns the number of the outcome. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_leaving(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u32 {
    let payload = Payload::from_bits(payload);
    judge_leaving(&SkBuffContext::new(skb), Halves { upper, lower }, payload) as u32
}

#[inline(always)]
fn judge_leaving(ctx: &SkBuffContext, address: Halves, payload: Payload) -> Outcome {
    let length = ctx.len();
    if !payload.is_known() {
        return drop_unparsed(ctx, length);
    }
    let against = reason_against(ctx);
    let to = destination(ctx, address, payload);
    if against.is_none() && asks(ctx, &to, payload) {
        let is_judged = !payload.continues_tcp();
        let class = Class::number(to.protocol);
        tally_packet(Outcome::Sent as u32, class, is_judged, length);
        return Outcome::Sent;
    }
    if payload.continues_tcp()
        && against.is_none()
        && qfence_carries_on(ctx.skb.skb, address.upper, address.lower, payload.bits()) != 0
    {
        tally_packet(Outcome::Sent as u32, Class::Tcp as u32, false, length);
        return Outcome::Sent;
    }
    let judgement = judged(ctx, &to, payload, against);
    let Judgement {
        outcome,
        verdict,
        is_reply,
        ..
    } = Judgement::unpack(judgement);
    tally_packet(
        Judgement::outcome_of(judgement),
        Class::number(to.protocol),
        true,
        length,
    );
    let goes_to_host = to.path == LookupPath::Loopback || verdict.has(HOST | MANY);
    if goes_to_host && to.protocol == Protocol::UDP && outcome != Outcome::Refused {
        let ports = u32::from(payload.source_port()) << 16 | u32::from(to.port);
        qfence_note_sent(ctx.skb.skb, ports, is_reply.into());
    }
    if outcome != Outcome::Sent {
        refuse_packet(ctx, to.address, verdict, rest(EGRESS, payload));
    }
    if outcome == Outcome::Refused && to.protocol == Protocol::TCP && !payload.continues_tcp() {
        qfence_report_syn(ctx.skb.skb);
    }
    outcome
}

/// Judges a packet by the policy, or refuses it because of the rule with the number `against`. Returns a packed judgement.
#[inline(always)]
fn judged(ctx: &SkBuffContext, to: &Destination, payload: Payload, against: Option<u32>) -> u64 {
    let Halves { upper, lower } = to.address;
    let path = to.path as u32 | against.unwrap_or(0) << AGAINST_SHIFT;
    qfence_judge_packet(ctx.skb.skb, upper, lower, payload.bits(), path)
}

/// Rule numbers have 24 bits.
const AGAINST_SHIFT: u32 = 8;
/// The bits of the path below it.
const PATH: u32 = (1 << AGAINST_SHIFT) - 1;

/// Judges a packet by the policy, given the number of its path, and above [`AGAINST_SHIFT`] that of a rule by which it is
/// refused, or 0. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_packet(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
    path: u32,
) -> u64 {
    let against = path >> AGAINST_SHIFT;
    let payload = Payload::from_bits(payload);
    let to = Destination {
        address: Halves { upper, lower },
        port: match against {
            0 => judged_port(skb, Halves { upper, lower }, payload, path),
            _ => payload.destination_port(),
        },
        protocol: payload.protocol(),
        path: if path & PATH == LookupPath::Address as u32 {
            LookupPath::Address
        } else {
            LookupPath::Loopback
        },
    };
    if against != 0 {
        let judgement = refused(against, false).pack();
        note_decision::<EGRESS>(&to, judgement);
        return judgement;
    }
    // Only what leaves through the loopback device gets to a socket of this host. A listener on all addresses is found for any
    // destination, also for one that is the host only by host.toml, or as a translator spells it.
    let stays = to.path == LookupPath::Loopback;
    let own = |verdict: Verdict| match payload.protocol() {
        _ if !stays => 0,
        Protocol::UDP if knows_self() => {
            qfence_own_packet(skb, upper, lower, payload.bits(), verdict.bits())
        }
        Protocol::TCP if !payload.continues_tcp() => {
            qfence_own_syn(skb, payload.bits(), verdict.bits())
        }
        _ => 0,
    };
    let judgement = judge(&to, false, || whole_socket(skb), own);
    note_decision::<EGRESS>(&to, judgement);
    judgement
}

/// Returns the port by which a packet is judged: the host's NAT may have redirected a question to a nameserver.
#[inline(always)]
fn judged_port(skb: *mut __sk_buff, address: Halves, payload: Payload, path: u32) -> u16 {
    let port = payload.destination_port();
    if path == LookupPath::Address as u32 {
        return port;
    }
    let Halves { upper, lower } = address;
    let protocol = payload.protocol().0;
    let judged = qfence_judged_port(skb, upper, lower, protocol, port.into());
    u16::try_from(judged).unwrap_or(0)
}

/// Returns the destination of a packet. Its path is loopback if the packet leaves through the loopback device.
#[inline(always)]
pub(super) fn destination(ctx: &SkBuffContext, address: Halves, payload: Payload) -> Destination {
    Destination {
        address,
        port: payload.destination_port(),
        protocol: payload.protocol(),
        path: if is_loopback(ctx) {
            LookupPath::Loopback
        } else {
            LookupPath::Address
        },
    }
}

/// Returns the number of the rule by which a packet is refused whatever its destination.
#[inline(always)]
fn reason_against(ctx: &SkBuffContext) -> Option<u32> {
    if !has_monitored_sockets() {
        return None;
    }
    match qfence_reason_against_packet(ctx.skb.skb) {
        0 => None,
        reason => Some(reason),
    }
}

/// Returns the number of the rule by which a packet is refused because only monitor mode let its socket be created; or
/// 0. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reason_against_packet(skb: *mut __sk_buff) -> u32 {
    reason_against_socket(|| whole_socket(skb)).unwrap_or(0)
}

/// Notes a datagram to the host, by its ports; the source port is in the upper half. Returns 0, because a global
/// function must return a value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_sent(skb: *mut __sk_buff, ports: u32, is_reply: u32) -> u32 {
    let [from, to] = [ports >> 16, ports & 0xffff].map(|port| u16::try_from(port).unwrap_or(0));
    let (source, destination) = read_addresses(&Skb(skb));
    peers::note_sent(
        whole_socket(skb),
        (source, from),
        (destination, to),
        is_reply != 0,
    );
    0
}

#[inline(always)]
fn drop_unparsed(ctx: &SkBuffContext, length: u32) -> Outcome {
    let Judgement {
        outcome, verdict, ..
    } = refused(UNPARSED, monitors());
    tally_packet(outcome as u32, Class::Other as u32, false, length);
    count(Counter::Unparsed);
    refuse_packet(ctx, Halves::NONE, verdict, rest(EGRESS, Payload::UNKNOWN));
    outcome
}
