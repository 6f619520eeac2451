//! Counts what is let through, by destination, in a fence that logs it. In other fences the global is zero, and the
//! verifier removes all that depends on it.

mod entries;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_addr},
    helpers::bpf_skb_cgroup_id,
    programs::{SkBuffContext, SockAddrContext},
};
use qfence_common::{
    Action, FlowKey, Halves, LookupPath, Payload, Protocol, Sighting, flow::BY_CGROUP,
    packet::parse, verdict::NO_RULE,
};

use self::entries::{find, find_or_add, find_or_others, is_forgotten, others};
use crate::{
    account::count::add,
    hooks::packet::LOOPBACK,
    judge::policy::verdict,
    maps::LOG_ALLOWED,
    subject::{
        destination::{self, Destination},
        owner,
        skb::{Skb, whole_socket},
        socket::is_of_own_connection,
    },
};

/// Whether what is let through is logged.
#[inline(always)]
pub(crate) fn are_logged() -> bool {
    LOG_ALLOWED.load() != 0
}

/// Counts an allowed call.
#[inline(always)]
pub(crate) fn note_call(ctx: &SockAddrContext, to: &Destination, rule: u32) {
    if are_logged() {
        let ends = u32::from(to.port) | (to.protocol.0 & 0xffff) << 16;
        let Halves { upper, lower } = to.address;
        qfence_note_call(ctx.sock_addr, upper, lower, ends, rule);
    }
}

/// Counts a packet that leaves. A packet that begins a flow without a call, such as a ping, makes an entry.
#[inline(always)]
pub(crate) fn note_sent(ctx: &SkBuffContext, to: Halves, payload: Payload) {
    if are_logged() {
        qfence_note_sent_packet(ctx.skb.skb, to.upper, to.lower, payload.bits());
    }
}

/// Counts a packet that arrives from a destination.
#[inline(always)]
pub(crate) fn note_received(ctx: &SkBuffContext) {
    if are_logged() {
        qfence_note_received_packet(ctx.skb.skb);
    }
}

/// Counts a frame of a guest that goes on, by the number of the rule that lets it through.
#[inline(always)]
pub(crate) fn note_frame_sent(to: Halves, payload: Payload, rule: u32, length: u32) {
    if are_logged() {
        qfence_note_frame_sent(to.upper, to.lower, payload.bits(), rule, length);
    }
}

/// Counts a frame to a guest.
#[inline(always)]
pub(crate) fn note_frame_received(from: Halves, payload: Payload, length: u32) {
    if are_logged() {
        qfence_note_frame_received(from.upper, from.lower, payload.bits(), length);
    }
}

// The functions are global for the sake of the verifier (see `judge/policy.rs`). Older kernels verify them in each fence,
// so they begin with the question.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_call(
    ctx: *mut bpf_sock_addr,
    upper: u64,
    lower: u64,
    ends: u32,
    rule: u32,
) -> u32 {
    if !are_logged() {
        return 0;
    }
    let protocol = match Protocol(ends >> 16) {
        // Its packets are those of TCP.
        Protocol::MPTCP => Protocol::TCP,
        other => other,
    };
    let key = FlowKey {
        to: Sighting {
            address: Halves { upper, lower },
            port: ends & 0xffff,
            protocol: protocol.0,
        },
        cgroup: match are_told_apart() {
            true => owner::maker(destination::socket(&SockAddrContext::new(ctx))),
            false => 0,
        },
    };
    let flow = find_or_add(&key, rule);
    if !flow.is_null() {
        // SAFETY: a value of the map, aligned and alive as long as the program runs.
        add(unsafe { &raw mut (*flow).calls }, 1);
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_sent_packet(
    skb: *mut __sk_buff,
    upper: u64,
    lower: u64,
    payload: u64,
) -> u32 {
    if !are_logged() {
        return 0;
    }
    let payload = Payload::from_bits(payload);
    let address = Halves { upper, lower };
    let key = key(address, payload, payload.destination_port(), cgroup(skb));
    let mut flow = find(&key);
    // A segment of TCP that continues a connection without an entry belongs to one that was accepted, unless its entry was
    // removed.
    if flow.is_null() && (!payload.continues_tcp() || is_forgotten(&key) && is_opened(skb)) {
        let (protocol, port) = (payload.protocol(), payload.destination_port());
        let verdict = verdict(path(skb), address, protocol, port);
        // A reply to a peer is let through although the policy denies it.
        if verdict.action() == Action::Allow {
            flow = find_or_add(&key, verdict.rule());
        }
    }
    if !flow.is_null() {
        // SAFETY: the hook's own context; the verifier checks each access.
        let length = unsafe { (*skb).len };
        // SAFETY: a value of the map, aligned and alive as long as the program runs.
        add(unsafe { &raw mut (*flow).sent_packets }, 1);
        // SAFETY: as above.
        add(unsafe { &raw mut (*flow).sent_bytes }, length.into());
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_received_packet(skb: *mut __sk_buff) -> u32 {
    if !are_logged() {
        return 0;
    }
    let Some(packet) = parse(&Skb(skb)) else {
        return 0;
    };
    let payload = packet.payload;
    let port = payload.source_port();
    let key = key(packet.source, payload, port, cgroup(skb));
    let mut flow = find(&key);
    if flow.is_null() && is_forgotten(&key) && (!is_tcp(payload) || is_opened(skb)) {
        flow = others();
    }
    if !flow.is_null() {
        // SAFETY: the hook's own context; the verifier checks each access.
        let length = unsafe { (*skb).len };
        // SAFETY: a value of the map, aligned and alive as long as the program runs.
        add(unsafe { &raw mut (*flow).received_packets }, 1);
        // SAFETY: as above.
        add(unsafe { &raw mut (*flow).received_bytes }, length.into());
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_frame_sent(
    upper: u64,
    lower: u64,
    payload: u64,
    rule: u32,
    length: u32,
) -> u32 {
    if !are_logged() {
        return 0;
    }
    let payload = Payload::from_bits(payload);
    let key = key(
        Halves { upper, lower },
        payload,
        payload.destination_port(),
        0,
    );
    let mut flow = find(&key);
    // Such a segment without an entry belongs to a connection to the guest, unless its entry was removed. What an exception
    // lets through has no rule.
    if flow.is_null() && rule != NO_RULE && (!payload.continues_tcp() || is_forgotten(&key)) {
        flow = find_or_add(&key, rule);
    }
    if !flow.is_null() {
        // SAFETY: a value of the map, aligned and alive as long as the program runs.
        add(unsafe { &raw mut (*flow).sent_packets }, 1);
        // SAFETY: as above.
        add(unsafe { &raw mut (*flow).sent_bytes }, length.into());
    }
    0
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_frame_received(upper: u64, lower: u64, payload: u64, length: u32) -> u32 {
    if !are_logged() {
        return 0;
    }
    let payload = Payload::from_bits(payload);
    let flow = find_or_others(&key(
        Halves { upper, lower },
        payload,
        payload.source_port(),
        0,
    ));
    if !flow.is_null() {
        // SAFETY: as above.
        add(unsafe { &raw mut (*flow).received_packets }, 1);
        // SAFETY: as above.
        add(unsafe { &raw mut (*flow).received_bytes }, length.into());
    }
    0
}

#[inline(always)]
fn path(skb: *mut __sk_buff) -> LookupPath {
    // SAFETY: the hook's own context; the verifier checks each access.
    if unsafe { (*skb).ifindex } == LOOPBACK {
        LookupPath::Loopback
    } else {
        LookupPath::Address
    }
}

#[inline(always)]
fn key(address: Halves, payload: Payload, port: u16, cgroup: u64) -> FlowKey {
    FlowKey {
        to: Sighting {
            address,
            port: port.into(),
            protocol: payload.protocol().0,
        },
        cgroup,
    }
}

/// Whether the cgroups in the fence are told apart.
#[inline(always)]
fn are_told_apart() -> bool {
    LOG_ALLOWED.load() == BY_CGROUP
}

#[inline(always)]
fn is_tcp(payload: Payload) -> bool {
    payload.protocol() == Protocol::TCP
}

/// Whether the connection of a packet was opened by a call in the fence, and not accepted.
#[inline(always)]
fn is_opened(skb: *mut __sk_buff) -> bool {
    is_of_own_connection(whole_socket(skb))
}

/// The cgroup of the socket of a packet, in a fence that tells its cgroups apart.
#[inline(always)]
fn cgroup(skb: *mut __sk_buff) -> u64 {
    match are_told_apart() {
        // SAFETY: the hook's own packet.
        true => unsafe { bpf_skb_cgroup_id(skb) },
        false => 0,
    }
}
