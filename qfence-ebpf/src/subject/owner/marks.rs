//! Notes about a socket: its options, and the nameservers that it asks.

use aya_ebpf::bindings::bpf_sock;
use qfence_common::event::GUEST;

use super::{ASKS_NAMESERVER, BROADCASTER, NAMES_OTHER_PORT, read, storage};

/// Notes options of a full socket, by flags in [`qfence_common::own`].
#[inline(always)]
pub(crate) fn mark_options(socket: *mut bpf_sock, flags: u32) {
    // A socket without an owner is not the fence's own.
    let _ = mark(socket, flags);
}

/// Notes that a full socket is a guest's connection.
#[inline(always)]
pub(crate) fn mark_guest(socket: *mut bpf_sock) {
    // If this fails, the connection counts as the emulator's own.
    let _ = mark(socket, GUEST);
}

/// Notes that a full UDP socket was allowed to send a datagram to the nameserver port of the host.
#[inline(always)]
pub(crate) fn mark_question(socket: *mut bpf_sock) {
    // If this fails, a datagram that is redirected to another port is refused.
    let _ = mark(socket, ASKS_NAMESERVER);
}

/// Notes that a call names another port than that of nameservers as the destination of a full UDP socket. It must be noted
/// before the call changes the socket. Returns false if the socket has no owner. Then it was not noted that it asks, either.
#[inline(always)]
pub(crate) fn mark_other_port(socket: *mut bpf_sock) -> bool {
    mark(socket, NAMES_OTHER_PORT)
}

/// Whether a full UDP socket was allowed to send a datagram to the nameserver port of the host, and no call ever named
/// another port as its destination.
#[inline(always)]
pub(crate) fn only_asks_nameservers(socket: *mut bpf_sock) -> bool {
    read(socket)
        .is_some_and(|owner| owner.flags & (ASKS_NAMESERVER | NAMES_OTHER_PORT) == ASKS_NAMESERVER)
}

/// Notes that a full socket may broadcast. Returns false if that could not be noted.
#[inline(always)]
pub(crate) fn mark_broadcaster(socket: *mut bpf_sock) -> bool {
    mark(socket, BROADCASTER)
}

#[inline(always)]
fn mark(socket: *mut bpf_sock, flag: u32) -> bool {
    let owner = storage(socket, core::ptr::null_mut());
    if owner.is_null() {
        return false;
    }
    // SAFETY: a value of the map, aligned and alive as long as the program runs.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above.
    let before = unsafe { flags.read_volatile() };
    // Most sockets send more than once: a word that is not written stays in the caches of other CPUs.
    if before & flag != flag {
        // SAFETY: as above.
        unsafe { flags.write_volatile(before | flag) };
    }
    true
}

/// Whether a full socket may broadcast. One without an owner may have been made before the fence was attached.
#[inline(always)]
pub(crate) fn may_broadcast(socket: *mut bpf_sock) -> bool {
    read(socket).is_none_or(|owner| owner.flags & BROADCASTER != 0)
}
