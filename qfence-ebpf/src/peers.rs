//! Remembers which peers on the host spoke first, so that they can be answered.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock},
    helpers::bpf_ktime_get_boot_ns,
};
use qfence_common::{
    Halves, Peer,
    peer::{asked_slot, may_answer},
};

use crate::{
    maps::{ASKED, PEERS},
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

/// Notes that the fence sends a datagram to an address and port of the host, which a rule allows: what comes from there
/// from now on is an answer, unless it spoke first. In a namespace that the fence made for itself there is nobody whom
/// that would be news to.
#[inline(always)]
pub(crate) fn note_asked(socket: *mut bpf_sock, address: Halves, port: u16) {
    let Some(peer) = peer(socket, address, port) else {
        return;
    };
    if !is_home(peer.netns) || spoke_first(&peer) {
        return;
    }
    if let Some(asked) = ASKED.get_ptr_mut(0) {
        // SAFETY: within the map's value, which is alive as long as the program runs; a byte, which others see whole.
        unsafe {
            asked
                .cast::<u8>()
                .add(asked_slot(address, port))
                .write_volatile(1);
        }
    }
}

/// Whether the fence has sent a datagram to a peer by a rule, so that it did not speak first.
#[inline(always)]
fn was_asked(peer: &Peer) -> bool {
    let Some(asked) = ASKED.get_ptr(0) else {
        return true;
    };
    // SAFETY: as above.
    let asked = unsafe {
        asked
            .cast::<u8>()
            .add(asked_slot(peer.address, peer.port))
            .read_volatile()
    };
    asked != 0 && is_home(peer.netns)
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
