//! Notes the peers on the host that sent the first datagram, for the reply exception.
//!
//! A request, in this module, is a datagram that the fence sends to the host because a rule allows it.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock},
    btf_maps::lpm_trie::Key,
    helpers::bpf_ktime_get_boot_ns,
};
use qfence_common::{
    Halves, Peer,
    peer::{Arrival, Heard, Noted, OWN_FOR_NS},
};

use crate::{
    judge::room,
    maps::{
        CHANGE, NOTED,
        marks::{self, marks},
    },
    subject::{
        netns::{is_home, is_of_workload},
        owner,
        socket::{is_raw, local_port},
    },
};

/// Makes the key of a socket's peer. `None` if the network namespace of the socket is unknown, and for a raw socket:
/// such a socket receives copies of datagrams for others, and can send from any port.
#[inline(always)]
pub(crate) fn peer(socket: *mut bpf_sock, address: Halves, port: u16) -> Option<Peer> {
    if socket.is_null() || is_raw(socket) {
        return None;
    }
    Some(Peer {
        netns: owner::netns(socket)?,
        address,
        port,
        // The port of the socket: the packet's may be another.
        local_port: local_port(socket),
        reserved: 0,
    })
}

/// Notes that the fence sends a datagram to the host, or to a broadcast or multicast address: by a rule, or as a reply. In
/// a namespace that the fence made for itself, no note is needed.
///
/// From now on, a datagram from a port to which a request was sent is an answer, from whatever address: a service that
/// is bound to all addresses answers from one that the kernel chooses. A datagram to a peer that sent first is no
/// request.
#[inline(always)]
pub(crate) fn note_sent(
    socket: *mut bpf_sock,
    from: (Halves, u16),
    to: (Halves, u16),
    is_reply: bool,
) {
    let Some(peer) = peer(socket, to.0, to.1) else {
        return;
    };
    if !is_shared(peer.netns) {
        return;
    }
    let now = now_ns();
    note(Noted::Own(from.0, from.1), now, true);
    if !is_reply && !room::heard(&peer).is_some_and(|heard| heard.spoke_first(changed_ns())) {
        note(Noted::Asked(peer.port), now, false);
        note(Noted::AskedFrom(peer.local_port), now, false);
    }
}

/// Notes the time. An older note is replaced if `renewed` is set, or if it is old enough. If there is no memory for the
/// note, no datagram makes a peer from then on.
#[inline(always)]
fn note(what: Noted, now: u64, renewed: bool) {
    qfence_note_time(what.key(), now, renewed.into());
}

/// Returns 0, because a global function must return a value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_note_time(what: u64, now: u64, renewed: u32) -> u32 {
    let key = key(what);
    let noted = NOTED.get(&key).copied();
    if noted.is_some_and(|then| renewed == 0 || now < then.saturating_add(RENEWED_AFTER_NS)) {
        return 0;
    }
    if NOTED.insert(&key, now, u64::from(BPF_ANY)).is_err() {
        // SAFETY: the address of a field of an existing value.
        marks::set(|marks| unsafe { &raw mut (*marks).asked_unnoted });
    }
    0
}

/// Returns the time of a note, in nanoseconds since boot.
#[inline(always)]
fn noted(what: Noted) -> Option<u64> {
    match qfence_noted_time(what.key()) {
        0 => None,
        time => Some(time),
    }
}

/// Returns the time of a note, or 0 if there is none. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_noted_time(what: u64) -> u64 {
    NOTED.get(&key(what)).copied().unwrap_or(0)
}

/// The age at which the time of a note is renewed, in nanoseconds. A younger one is kept, because each write allocates
/// memory.
const RENEWED_AFTER_NS: u64 = OWN_FOR_NS / 10;

/// Makes a trie key with full prefix length.
#[inline(always)]
fn key(what: u64) -> Key<u64> {
    // The key has the size of the value, which the kernel stores behind it.
    Key::new(u64::BITS, what)
}

/// Returns the time since boot in nanoseconds, suspend included.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Whether others than the fence can send in the namespace with this cookie: it is the fence's home, or of a workload.
#[inline(always)]
fn is_shared(netns: u64) -> bool {
    is_home(netns) || is_of_workload(netns)
}

/// Notes a peer that has just sent a datagram, if it sent first. In a namespace that the fence made for itself, every
/// sender counts as first.
#[inline(always)]
pub(crate) fn remember(peer: &Peer) {
    let now = now_ns();
    let is_shared = is_shared(peer.netns);
    if is_shared && is_own(peer, now) {
        return;
    }
    if room::heard(peer).is_some_and(Heard::is_unasked) {
        room::set(peer, Heard::now(now, true));
        return;
    }
    let asked = noted(Noted::AskedFrom(peer.local_port));
    if is_shared && is_answer(peer, now, asked.unwrap_or(u64::MAX)) {
        return;
    }
    room::set(peer, Heard::now(now, asked.is_none() || !is_shared));
}

/// Whether a datagram from a peer was or may have been sent by the fence itself. It may have been if there was no
/// memory for the note on the fence's own address and port.
#[inline(always)]
fn is_own(peer: &Peer, now_ns: u64) -> bool {
    let until_ns = noted(Noted::Own(peer.address, peer.port));
    now_ns < until_ns.map_or(0, |ns| ns.saturating_add(OWN_FOR_NS))
        || marks().is_none_or(|marks| marks.asked_unnoted != 0)
}

/// Whether the datagram of a peer may be an answer to a request of the fence. `asked_ns` is the time of the first
/// request from the port at which the datagram arrived.
#[inline(always)]
fn is_answer(peer: &Peer, now_ns: u64, asked_ns: u64) -> bool {
    if noted(Noted::Asked(peer.port)).is_some() {
        return true;
    }
    let answering = Noted::Answering(peer.address, peer.port);
    let arrival = Arrival {
        now_ns,
        asked_ns,
        changed_ns: changed_ns(),
        answering_ns: noted(answering).unwrap_or(0),
    };
    if arrival.may_be_an_answer() {
        note(answering, now_ns, true);
        return true;
    }
    false
}

/// Returns the time of the last change of the policy, in nanoseconds since boot. If it cannot be read, which the verifier
/// takes for possible, everything came before it.
#[inline(always)]
pub(crate) fn changed_ns() -> u64 {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let change = unsafe { CHANGE.get_ptr(0).and_then(|change| change.as_ref()) };
    change.map_or(u64::MAX, |change| change.changed_ns)
}

/// Whether a peer sent a datagram recently, under the policy in force.
#[inline(always)]
pub(crate) fn spoke_first(peer: &Peer) -> bool {
    room::heard(peer).is_some_and(|heard| heard.may_be_answered(now_ns(), changed_ns()))
}
