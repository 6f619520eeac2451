//! Remembers which peers on the host spoke first, so that they can be answered.

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
    maps::{
        CHANGE, NOTED, PEERS,
        marks::{self, marks},
    },
    subject::{
        netns::is_home,
        owner,
        socket::{is_raw, local_port},
    },
};

/// A peer of a socket. None of one of which nobody knows where it is, and none of a raw one: that
/// overhears what was sent to others, and sends from any port.
#[inline(always)]
pub(crate) fn peer(socket: *mut bpf_sock, address: Halves, port: u16) -> Option<Peer> {
    if socket.is_null() || is_raw(socket) {
        return None;
    }
    Some(Peer {
        netns: owner::netns(socket)?,
        address,
        port,
        // The socket's, not the packet's.
        local_port: local_port(socket),
        reserved: 0,
    })
}

/// Notes that the fence sends a datagram to the host over loopback, or to many: by a rule, or as a reply. In a namespace
/// that the fence made for itself there is nobody whom that would be news to.
///
/// What comes from a port that was asked by a rule is an answer from now on, by whatever address: a service that is bound
/// to all of them answers by one that the kernel chooses. But who once spoke first is not asked: it is sent something.
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
    if !is_home(peer.netns) {
        return;
    }
    let now = now_ns();
    note(Noted::Own(from.0, from.1), now, true);
    if !is_reply && PEERS.get_ptr(peer).is_none() {
        note(Noted::Asked(peer.port), now, false);
        note(Noted::AskedFrom(peer.local_port), now, false);
    }
}

/// Notes the time, in place of one that was noted before if that is to be `renewed`. If there is no memory for it, nobody
/// counts as having spoken first from then on.
#[inline(always)]
fn note(what: Noted, now: u64, renewed: bool) {
    if noted(what).is_some_and(|then| !renewed || now < then.saturating_add(RENEWED_AFTER_NS)) {
        return;
    }
    if NOTED.insert(&key(what), now, u64::from(BPF_ANY)).is_err() {
        // SAFETY: the place of a field of a value that is there.
        marks::set(|marks| unsafe { &raw mut (*marks).asked_unnoted });
    }
}

/// When something was noted, in nanoseconds since boot.
#[inline(always)]
fn noted(what: Noted) -> Option<u64> {
    NOTED.get(&key(what)).copied()
}

/// How old a time is that is renewed, in nanoseconds: each time that is noted takes memory anew.
const RENEWED_AFTER_NS: u64 = OWN_FOR_NS / 10;

/// What is found in a trie by all of its bits alone.
#[inline(always)]
fn key(what: Noted) -> Key<u64> {
    // As long as what it leads to, which the kernel puts behind it.
    Key::new(u64::BITS, u64::from(what.key()))
}

/// The time since boot, suspend included.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Remembers a peer that has just been heard of, if it speaks first: in a namespace of the fence's own, all do. Without
/// room the one not heard of for longest is forgotten; if the kernel cannot do even that, this peer is not answered.
#[inline(always)]
pub(crate) fn remember(peer: &Peer) {
    let now = now_ns();
    let known = PEERS.get_ptr_mut(peer);
    let is_home = is_home(peer.netns);
    if is_home && is_own(peer, now) {
        return;
    }
    if let Some(heard) = known {
        // SAFETY: the map's value, aligned and alive as long as the program runs; a word.
        let before = unsafe { heard.read_volatile() };
        if Heard(before).is_unasked() {
            // SAFETY: as above; others see it whole.
            unsafe { heard.write_volatile(Heard::now(now, true).0) };
            return;
        }
    }
    let asked = noted(Noted::AskedFrom(peer.local_port));
    if is_home && is_answer(peer, now, asked.unwrap_or(u64::MAX)) {
        return;
    }
    let heard = Heard::now(now, asked.is_none() || !is_home);
    let _ = PEERS.insert(peer, heard.0, u64::from(BPF_ANY));
}

/// Whether what just came from a peer was sent by the fence itself, or may have been: if there was no memory to note where
/// the fence sends from.
#[inline(always)]
fn is_own(peer: &Peer, now_ns: u64) -> bool {
    let until_ns = noted(Noted::Own(peer.address, peer.port));
    now_ns < until_ns.map_or(0, |ns| ns.saturating_add(OWN_FOR_NS))
        || marks().is_none_or(|marks| marks.asked_unnoted != 0)
}

/// Whether a peer that was just heard of may be answering what the fence asked, from its own port first at `asked_ns`.
#[inline(always)]
fn is_answer(peer: &Peer, now_ns: u64, asked_ns: u64) -> bool {
    if noted(Noted::Asked(peer.port)).is_some() {
        return true;
    }
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let change = unsafe { CHANGE.get_ptr(0).and_then(|change| change.as_ref()) };
    let Some(change) = change else {
        return true;
    };
    let answering = Noted::Answering(peer.address, peer.port);
    let arrival = Arrival {
        now_ns,
        asked_ns,
        changed_ns: change.changed_ns,
        answering_ns: noted(answering).unwrap_or(0),
    };
    if arrival.may_be_an_answer() {
        note(answering, now_ns, true);
        return true;
    }
    false
}

/// Whether a peer has been heard of of late.
#[inline(always)]
pub(crate) fn spoke_first(peer: &Peer) -> bool {
    let Some(heard) = PEERS.get_ptr(peer) else {
        return false;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs; a word.
    let heard = unsafe { heard.read_volatile() };
    Heard(heard).may_be_answered(now_ns())
}
