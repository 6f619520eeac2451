//! Remembers which peers on the host spoke first, so that they can be answered.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock},
    btf_maps::lpm_trie::Key,
    helpers::bpf_ktime_get_boot_ns,
};
use qfence_common::{Halves, Peer, peer::may_answer};

use crate::{
    maps::{ASKED, MARKS, PEERS},
    netns::is_home,
    owner,
    socket::{is_raw, local_port},
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

/// Notes that the fence sends a datagram to a port of the host, which a rule allows: what comes from that port from now
/// on is an answer, unless who sends it spoke first. By whatever address: a service that is bound to all of them answers
/// by one that the kernel chooses. In a namespace that the fence made for itself there is nobody whom that would be news
/// to.
#[inline(always)]
pub(crate) fn note_asked(socket: *mut bpf_sock, address: Halves, port: u16) {
    let Some(peer) = peer(socket, address, port) else {
        return;
    };
    let key = asked(port);
    if !is_home(peer.netns) || ASKED.get(&key).is_some() || spoke_first(&peer) {
        return;
    }
    if ASKED.insert(&key, 1, u64::from(BPF_ANY)).is_err()
        && let Some(marks) = MARKS.get_ptr_mut(0)
    {
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let unnoted = unsafe { &raw mut (*marks).asked_unnoted };
        // SAFETY: as above; a word, which others see whole.
        unsafe { unnoted.write_volatile(1) };
    }
}

/// Whether the fence has sent a datagram to a peer's port by a rule, so that it did not speak first.
#[inline(always)]
fn was_asked(peer: &Peer) -> bool {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    let marks = unsafe { MARKS.get_ptr(0).and_then(|marks| marks.as_ref()) };
    is_home(peer.netns)
        && (ASKED.get(&asked(peer.port)).is_some()
            || marks.is_none_or(|marks| marks.asked_unnoted != 0))
}

/// A port as the key of a trie, which is found by all of its bits alone.
#[inline(always)]
fn asked(port: u16) -> Key<u32> {
    Key::new(u32::BITS, u32::from(port))
}

/// Remembers a peer that has just been heard of, unless the fence has asked it. Without room the one not heard of for
/// longest is forgotten; if the kernel cannot do even that, this peer is not answered.
#[inline(always)]
pub(crate) fn remember(peer: &Peer) {
    if was_asked(peer) {
        return;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(last) = PEERS.get_ptr_mut(peer) {
        // SAFETY: the map's value, aligned and alive as long as the program runs; a word, which other
        // CPUs see whole.
        unsafe { last.write_volatile(now) };
    } else {
        let _ = PEERS.insert(peer, now, u64::from(BPF_ANY));
    }
}

/// Whether a peer has been heard of of late.
#[inline(always)]
pub(crate) fn spoke_first(peer: &Peer) -> bool {
    let Some(last) = PEERS.get_ptr(peer) else {
        return false;
    };
    // SAFETY: as above.
    let last = unsafe { last.read_volatile() };
    // SAFETY: a helper without arguments.
    may_answer(last, unsafe { bpf_ktime_get_boot_ns() })
}
