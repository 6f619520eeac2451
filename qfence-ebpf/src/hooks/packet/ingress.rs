//! Examines incoming packets from the host.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Packet, Payload, Protocol,
    packet::parse,
    tally::Class,
    verdict::{HOST, MANY, MONITOR, NO_RULE},
};

use super::{decision::note_decision, is_loopback, rest, return_value};
use crate::{
    account::{
        PROCEED,
        count::{tally_in_softirq, tally_packet},
        flows,
        refuse::{Rest, refuse_packet},
    },
    judge::{Judgement, judge, of_address, own::packet::qfence_may_accept, peers, policy::verdict},
    maps::{NODE_NETNS, RESOLVER},
    subject::{
        destination::Destination,
        netns::is_of_workload,
        owner,
        skb::{Skb, whole_socket},
        socket::is_raw,
    },
};

/// The packet type of a packet for this host, by its link layer (`PACKET_HOST` in linux/if_packet.h).
const PACKET_HOST: u32 = 0;
const INGRESS: u32 = Hook::Ingress as u32;

/// Judges an incoming packet over loopback. It notes the sender of a datagram as a peer of the receiving port, drops an
/// answer to a ping that would be refused, and an answer to a SYN that did not reach the listener for which its connection
/// was let through.
///
/// Such an answer exists: the kernel loops IPv4 multicast and broadcast back before the egress hook runs
/// (`ip_mc_output` clones the packet, and a clone has no socket), and a ping passes no other hook.
#[inline(always)]
pub(crate) fn judge_ingress(ctx: &SkBuffContext) -> i32 {
    let length = ctx.len();
    // SAFETY: the hook's own context; the verifier checks each access.
    let link_layer = unsafe { (*ctx.skb.skb).pkt_type };
    let is_loopback = is_loopback(ctx);
    if (is_loopback || NODE_NETNS.load() != 0)
        && let Some(packet) = parse(&Skb(ctx.skb.skb))
    {
        match packet.payload.protocol() {
            Protocol::UDP if link_layer == PACKET_HOST => {
                let Halves { upper, lower } = packet.source;
                if is_answer(&packet) {
                    // The resolver is asked by queries that were led to it, and by nothing else.
                } else if is_loopback || qfence_sent_by_host(ctx.skb.skb, upper, lower) != 0 {
                    remember_sender(ctx, &packet);
                }
            }
            Protocol::ICMP | Protocol::ICMPV6 if is_loopback => {
                let Halves { upper, lower } = packet.source;
                let payload = packet.payload.bits();
                let outcome = qfence_judge_ping(ctx.skb.skb, upper, lower, payload);
                if outcome == Outcome::Received as u32 {
                    flows::note_received(ctx);
                }
                return return_value(outcome);
            }
            Protocol::TCP if is_loopback && packet.payload.accepts_tcp() => {
                let payload = packet.payload.bits();
                if qfence_may_accept(ctx.skb.skb, payload) == 0 {
                    let Halves { upper, lower } = packet.source;
                    let outcome = qfence_judge_answer(ctx.skb.skb, upper, lower, payload);
                    return return_value(outcome);
                }
            }
            _ => {}
        }
    }
    tally_in_softirq(Outcome::Received as u32, Class::Other as u32, false, length);
    flows::note_received(ctx);
    PROCEED
}

/// Whether a datagram comes from the resolver of the fence.
#[inline(always)]
fn is_answer(packet: &Packet) -> bool {
    RESOLVER
        .load()
        .is(packet.source, packet.payload.source_port())
}

#[inline(always)]
fn remember_sender(ctx: &SkBuffContext, packet: &Packet) {
    if !is_for_one(packet) {
        return;
    }
    let Halves { upper, lower } = packet.source;
    let port = packet.payload.source_port();
    qfence_remember(ctx.skb.skb, upper, lower, port.into());
}

/// Whether a packet that came by a wire was sent by the host, to a network namespace of a workload: 0 or 1. In the host's own
/// namespace, what comes by a wire is not the host's. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_sent_by_host(skb: *mut __sk_buff, upper: u64, lower: u64) -> u32 {
    let sender = of_address(Halves { upper, lower });
    if sender.rule() == NO_RULE || !sender.has(HOST) || sender.has(MANY) {
        return 0;
    }
    let socket = whole_socket(skb);
    (!socket.is_null() && owner::netns(socket).is_some_and(is_of_workload)).into()
}

/// Notes the sender of a datagram, an address and a port. Returns 0, because a global function must return a value.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_remember(skb: *mut __sk_buff, upper: u64, lower: u64, port: u32) -> u32 {
    let port = u16::try_from(port).unwrap_or(0);
    if let Some(peer) = peers::peer(whole_socket(skb), Halves { upper, lower }, port) {
        peers::remember(&peer);
    }
    0
}

/// Judges a possible answer to a ping by its source and its payload. Returns the number of the outcome. Global: see
/// `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_ping(skb: *mut __sk_buff, upper: u64, lower: u64, payload: u64) -> u32 {
    let payload = Payload::from_bits(payload);
    judge_ping(&SkBuffContext::new(skb), Halves { upper, lower }, payload) as u32
}

#[inline(always)]
fn judge_ping(ctx: &SkBuffContext, address: Halves, payload: Payload) -> Outcome {
    let length = ctx.len();
    // A raw socket also receives copies of packets for others.
    if is_raw(whole_socket(ctx.skb.skb)) {
        tally_packet(Outcome::Received as u32, Class::Icmp as u32, false, length);
        return Outcome::Received;
    }
    let from = Destination {
        address,
        port: 0,
        protocol: payload.protocol(),
        path: LookupPath::Loopback,
    };
    // Without the exceptions for packets that leave, which the verifier would check here too.
    let judgement = judge(&from, false, || whole_socket(ctx.skb.skb), |_| 0);
    note_decision::<INGRESS>(&from, judgement);
    let Judgement {
        outcome, verdict, ..
    } = Judgement::unpack(judgement);
    let outcome = match outcome {
        Outcome::Sent => Outcome::Received,
        Outcome::SentMonitored => Outcome::ReceivedMonitored,
        refused => refused,
    };
    tally_packet(outcome as u32, Class::Icmp as u32, true, length);
    if outcome != Outcome::Received {
        refuse_packet(ctx, from.address, verdict, rest(INGRESS, payload));
    }
    outcome
}

/// Judges an answer to a SYN that is not from the listener for which its connection was let through, by its source and
/// its payload. Returns the number of the outcome. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_judge_answer(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u32 {
    let ctx = SkBuffContext::new(skb);
    let payload = Payload::from_bits(payload);
    let (address, port) = (Halves { upper, lower }, payload.source_port());
    let verdict = verdict(LookupPath::Loopback, address, Protocol::TCP, port);
    let outcome = match verdict.action() {
        Action::Allow => Outcome::Received,
        Action::Deny if verdict.has(MONITOR) => Outcome::ReceivedMonitored,
        Action::Deny => Outcome::Refused,
    };
    tally_packet(outcome as u32, Class::Tcp as u32, true, ctx.len());
    if outcome != Outcome::Received {
        let rest = Rest {
            hook: INGRESS,
            protocol: Protocol::TCP,
            port,
            source_port: payload.destination_port(),
        };
        refuse_packet(&ctx, address, verdict, rest);
    }
    outcome as u32
}

/// Whether the packet was sent to a single address. A sender to a broadcast or multicast address is no peer of the
/// fence: otherwise the fence could send to each service that only announces itself. On loopback the link layer cannot
/// decide this, because all its addresses are zero.
#[inline(always)]
fn is_for_one(packet: &Packet) -> bool {
    let verdict = of_address(packet.destination);
    verdict.rule() != NO_RULE && !verdict.has(MANY)
}
