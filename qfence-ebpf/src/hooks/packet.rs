//! The hooks for packets: judges outgoing packets, and examines incoming packets from the host.

use aya_ebpf::{bindings::__sk_buff, programs::SkBuffContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Outcome, Packet, Payload, Protocol, Verdict,
    abi::Counter,
    own::SELF,
    packet::{parse, read_address},
    peer::Noted,
    tally::Class,
    verdict::{MANY, MONITOR, NO_RULE, UNPARSED},
};

use crate::{
    account::{
        PROCEED, REJECT,
        count::{count, tally_packet},
        flows,
        refuse::{Rest, refuse_packet},
        syn::qfence_report_syn,
        trace::trace,
    },
    judge::{
        Judgement, has_monitored_sockets, is_own_loopback, judge, of_address,
        own::{qfence_may_accept, qfence_own_packet, qfence_own_syn},
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
        socket::{has_connected_elsewhere, is_of_own_connection, is_raw, let_through},
    },
};

/// The index of the loopback device, in every network namespace (`LOOPBACK_IFINDEX` in include/net/flow.h;
/// `dev_index_reserve` makes it the first).
pub(crate) const LOOPBACK: u32 = 1;

/// The packet type of a packet for this host, by its link layer (`PACKET_HOST` in linux/if_packet.h).
const PACKET_HOST: u32 = 0;

const EGRESS: u32 = Hook::Egress as u32;
const INGRESS: u32 = Hook::Ingress as u32;

/// Judges an outgoing packet. Through the loopback device it reaches the host, whatever its address. Through another
/// device the address decides.
#[inline(always)]
pub(crate) fn judge_egress(ctx: &SkBuffContext) -> i32 {
    let (to, payload) = match parse(&Skb(ctx.skb.skb)) {
        Some(packet) => (packet.destination, packet.payload),
        None => (Halves::NONE, Payload::UNKNOWN),
    };
    let outcome = qfence_judge_leaving(ctx.skb.skb, to.upper, to.lower, payload.bits());
    if outcome == Outcome::Sent as u32 {
        flows::note_sent(ctx, to, payload);
    }
    return_value(outcome)
}

/// Converts the number of an outcome to the return value of the hook.
#[inline(always)]
const fn return_value(outcome: u32) -> i32 {
    match Outcome::of_number(outcome) {
        Outcome::Refused => REJECT,
        _ => PROCEED,
    }
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
    judge_leaving(&SkBuffContext::new(skb), Halves { upper, lower }, payload)
}

#[inline(always)]
fn judge_leaving(ctx: &SkBuffContext, address: Halves, payload: Payload) -> u32 {
    let length = ctx.len();
    if !payload.is_known() {
        return drop_unparsed(ctx, length) as u32;
    }
    let against = reason_against(ctx);
    let to = destination(ctx, address, payload);
    if payload.continues_tcp()
        && against.is_none()
        && !is_ours_to_judge(ctx)
        && !carries_on_what_is_denied(ctx, payload, &to)
    {
        tally_packet(Outcome::Sent as u32, Class::Tcp as u32, false, length);
        return Outcome::Sent as u32;
    }
    let judgement = judged(ctx, &to, payload, against);
    let Judgement {
        outcome, verdict, ..
    } = Judgement::unpack(judgement);
    trace::<EGRESS, _>(ctx, &to, outcome, verdict);
    let Halves { upper, lower } = address;
    qfence_conclude(ctx.skb.skb, upper, lower, payload.bits(), judgement)
}

/// Counts and records a packet by its destination, its payload and its packed judgement. Returns the number of the outcome.
/// Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_conclude(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
    judgement: u64,
) -> u32 {
    const SENT: u32 = Outcome::Sent as u32;
    const REFUSED: u32 = Outcome::Refused as u32;
    let ctx = SkBuffContext::new(skb);
    let payload = Payload::from_bits(payload);
    let protocol = payload.protocol();
    // The number, since the verifier would check for each outcome what follows.
    let outcome = Judgement::outcome_of(judgement);
    let Judgement {
        verdict, is_reply, ..
    } = Judgement::unpack(judgement);
    tally_packet(outcome, Class::number(protocol), true, ctx.len());
    let goes_to_host = is_loopback(&ctx) || verdict.has(MANY);
    if goes_to_host && protocol == Protocol::UDP && outcome != REFUSED {
        let ports = u32::from(payload.source_port()) << 16 | u32::from(payload.destination_port());
        qfence_note_sent(skb, upper, lower, ports, is_reply.into());
    }
    if outcome != SENT {
        refuse_packet(
            &ctx,
            Halves { upper, lower },
            verdict,
            rest(EGRESS, payload),
        );
    }
    if outcome == REFUSED && protocol == Protocol::TCP && !payload.continues_tcp() {
        qfence_report_syn(skb);
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
    if against != 0 {
        return refused(against, false).pack();
    }
    let payload = Payload::from_bits(payload);
    let to = Destination {
        address: Halves { upper, lower },
        port: judged_port(skb, Halves { upper, lower }, payload, path),
        protocol: payload.protocol(),
        path: if path == LookupPath::Address as u32 {
            LookupPath::Address
        } else {
            LookupPath::Loopback
        },
    };
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
    judge(&to, false, || whole_socket(skb), own)
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
fn destination(ctx: &SkBuffContext, address: Halves, payload: Payload) -> Destination {
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

// The functions below are global for the sake of the verifier (see `judge/policy.rs`); few packets need them.

/// Returns the number of the rule by which a packet is refused because only monitor mode let its socket be created; or
/// 0.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_reason_against_packet(skb: *mut __sk_buff) -> u32 {
    reason_against_socket(|| whole_socket(skb)).unwrap_or(0)
}

/// Whether a packet belongs to a connection that the fence opened, and not to a pair: [`NOT_OPENED`], [`OPENED`], or
/// [`OPENED_BY_SELF`] if a rule for `self` let it through.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_opened(skb: *mut __sk_buff) -> u32 {
    if !is_of_own_connection(whole_socket(skb)) {
        return NOT_OPENED;
    }
    match let_through(whole_socket(skb)) {
        0 => OPENED,
        SELF => OPENED_BY_SELF,
        _ => NOT_OPENED,
    }
}

const NOT_OPENED: u32 = 0;
const OPENED: u32 = 1;
const OPENED_BY_SELF: u32 = 2;

/// Whether this verdict denies the further segments of such a connection.
#[inline(always)]
fn ends(opened: u32, verdict: Verdict) -> bool {
    match opened {
        NOT_OPENED => false,
        OPENED_BY_SELF if verdict.self_rule().is_some() => false,
        _ => verdict.action() == Action::Deny,
    }
}

/// Notes a datagram to the host, by its destination and its ports; the source port is in the upper half. Returns 0, because
/// a global function must return a value.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_sent(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    ports: u32,
    is_reply: u32,
) -> u32 {
    let to = u16::try_from(ports & 0xffff).unwrap_or(0);
    let own = qfence_own_end(skb, ports >> 16);
    let address = Halves { upper, lower };
    peers::note_sent(whole_socket(skb), own, (address, to), is_reply != 0);
    0
}

/// Returns the key of the note on the source of a packet with this source port.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_own_end(skb: *mut __sk_buff, port: u32) -> u64 {
    let port = u16::try_from(port).unwrap_or(0);
    Noted::Own(read_address(&Skb(skb), true), port).key()
}

/// Returns the parts of a refusal other than the address.
#[inline(always)]
fn rest(hook: u32, payload: Payload) -> Rest {
    Rest {
        hook,
        protocol: payload.protocol(),
        port: payload.destination_port(),
        source_port: payload.source_port(),
    }
}

/// Whether a TCP segment that opens no connection is judged nevertheless. There are two such segments: one from a raw
/// socket, and one of an outgoing connection whose remote address has become local since. If the connection was allowed
/// although it was to the host, its segments are not judged.
#[inline(always)]
fn is_ours_to_judge(ctx: &SkBuffContext) -> bool {
    // The socket is looked up for each condition: the verifier of Linux 6.1 cannot track one pointer through all of
    // them.
    (ALLOW_RAW.load() != 0 && is_raw(whole_socket(ctx.skb.skb)))
        || (is_loopback(ctx) && has_connected_elsewhere(whole_socket(ctx.skb.skb)))
}

/// Whether a TCP segment that opens no connection belongs to an existing connection of the fence that a change of the
/// policy denies. A segment that resets the connection is excepted, so that the remote end learns of its end. If the
/// segment is allowed, that is not counted as a decision of a rule.
#[inline(always)]
fn carries_on_what_is_denied(ctx: &SkBuffContext, payload: Payload, to: &Destination) -> bool {
    judges_standing()
        && !payload.resets_tcp()
        && ends(
            qfence_opened(ctx.skb.skb),
            verdict(to.path, to.address, to.protocol, to.port),
        )
        && !is_own_loopback(to, false, || whole_socket(ctx.skb.skb))
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
    if is_loopback(ctx)
        && let Some(packet) = parse(&Skb(ctx.skb.skb))
    {
        match packet.payload.protocol() {
            Protocol::UDP if link_layer == PACKET_HOST => remember_sender(ctx, &packet),
            Protocol::ICMP | Protocol::ICMPV6 => {
                let Halves { upper, lower } = packet.source;
                let payload = packet.payload.bits();
                let outcome = qfence_judge_ping(ctx.skb.skb, upper, lower, payload);
                if outcome == Outcome::Received as u32 {
                    flows::note_received(ctx);
                }
                return return_value(outcome);
            }
            Protocol::TCP if packet.payload.accepts_tcp() => {
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
    tally_packet(Outcome::Received as u32, Class::Other as u32, false, length);
    flows::note_received(ctx);
    PROCEED
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
    let Judgement {
        outcome, verdict, ..
    } = Judgement::unpack(judge(&from, false, || whole_socket(ctx.skb.skb), |_| 0));
    trace::<INGRESS, _>(ctx, &from, outcome, verdict);
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

#[inline(always)]
fn is_loopback(ctx: &SkBuffContext) -> bool {
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK }
}
