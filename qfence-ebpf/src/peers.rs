//! Remembers which peers on the host spoke first, so that they can be answered.

use aya_ebpf::{
    bindings::{BPF_ANY, bpf_sock},
    helpers::bpf_ktime_get_boot_ns,
};
use qfence_common::{Halves, Peer, peer::may_answer};

use crate::{
    maps::PEERS,
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

/// Remembers a peer that has just been heard of. Without room the one not heard of for longest is
/// forgotten; if the kernel cannot do even that, this peer is not answered.
#[inline(always)]
pub(crate) fn remember(peer: &Peer) {
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
