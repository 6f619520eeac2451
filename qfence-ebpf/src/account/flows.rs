//! Counts what is let through, by destination, in a fence that logs it. In other fences the global is zero, and the
//! verifier removes all that depends on it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, bpf_sock_addr},
    helpers::bpf_skb_cgroup_id,
    programs::{SkBuffContext, SockAddrContext},
};
use qfence_common::{
    Action, Flow, FlowKey, Halves, LookupPath, OTHERS, Payload, Protocol, Sighting,
    flow::BY_CGROUP, packet::parse, verdict::NO_RULE,
};

use crate::{
    account::count::add,
    hooks::packet::LOOPBACK,
    judge::policy::verdict,
    maps::{FLOWS, FORGOTTEN, LOG_ALLOWED},
    subject::{
        destination::{self, Destination},
        owner,
        skb::Skb,
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
    if flow.is_null() && (!payload.continues_tcp() || is_forgotten(&key)) {
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
    let flow = find_or_others(&key(packet.source, payload, port, cgroup(skb)));
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

/// The cgroup of the socket of a packet, in a fence that tells its cgroups apart.
#[inline(always)]
fn cgroup(skb: *mut __sk_buff) -> u64 {
    match are_told_apart() {
        // SAFETY: the hook's own packet.
        true => unsafe { bpf_skb_cgroup_id(skb) },
        false => 0,
    }
}

#[inline(always)]
fn find(key: &FlowKey) -> *mut Flow {
    FLOWS.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())
}

/// Returns the flow of a key, or if there is no room for it, the one of all others.
#[inline(always)]
fn find_or_add(key: &FlowKey, rule: u32) -> *mut Flow {
    let flow = find(key);
    if !flow.is_null() {
        return flow;
    }
    let fresh = Flow {
        calls: 0,
        sent_packets: 0,
        sent_bytes: 0,
        received_packets: 0,
        received_bytes: 0,
        rule,
        reserved: 0,
    };
    // If it fails, another CPU has just added the key, or there is no room.
    let _ = FLOWS.insert(key, fresh, BPF_NOEXIST.into());
    let flow = find(key);
    if !flow.is_null() {
        return flow;
    }
    // What follows is to be counted although it begins nothing.
    if let Some(slot) = FORGOTTEN.get_ptr_mut(key.slot()) {
        // SAFETY: a value of the map, aligned and alive as long as the program runs. Nobody writes another flag.
        unsafe { slot.write_volatile(1) };
    }
    others()
}

/// Returns the flow of a key or, if its entry was removed or had no room, the one of all others: what arrives has no rule to
/// make an entry with.
#[inline(always)]
fn find_or_others(key: &FlowKey) -> *mut Flow {
    let flow = find(key);
    if flow.is_null() && is_forgotten(key) {
        return others();
    }
    flow
}

/// Whether the fence reached a destination whose entry was removed, or had no room. Others with the same slot are taken for
/// such: accepted connections of theirs are counted as well.
#[inline(always)]
fn is_forgotten(key: &FlowKey) -> bool {
    FORGOTTEN.get(key.slot()).is_some_and(|flag| *flag != 0)
}

#[inline(always)]
fn others() -> *mut Flow {
    // On the stack: for a constant of its own, each fence would have one more map.
    let others = OTHERS;
    find(&others)
}
