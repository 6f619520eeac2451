//! Notes about a connection: whether it is to the host, and whether it was let through to a listener of the fence.

use aya_ebpf::bindings::bpf_sock;
use qfence_common::{
    netns::INSIDE,
    own::{LET_THROUGH, UNKNOWN_OPTIONS},
};

use super::{CONNECTED_TO_HOST, Owner, of, of_connection, read, storage};
use crate::subject::author::Author;

/// Notes whether a full socket that is about to connect connects to an address that is known to be the host's. Then the
/// packets of the connection do not count as a sign of an address that has become local. A socket that the kernel
/// created has no owner yet: one that came from a listener and connects again, or a subflow of an MPTCP connection,
/// whose owner is that of the connection. `is_own` is whether the connection was [let through](note_own) to a socket of
/// the fence's own. Returns false if that could not be noted: a connection without an owner would count as incoming.
#[inline(always)]
pub(crate) fn note_connection(
    socket: *mut bpf_sock,
    netns: u64,
    to_host: bool,
    is_own: bool,
) -> bool {
    let owner = storage_for_connection(socket, netns);
    if owner.is_null() {
        return false;
    }
    // SAFETY: a value of the map, aligned and alive as long as the program runs.
    let flags = unsafe { &raw mut (*owner).flags };
    let former = if is_own { 0 } else { LET_THROUGH };
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    let others = unsafe { flags.read_volatile() } & !CONNECTED_TO_HOST & !former;
    let connected = if to_host { CONNECTED_TO_HOST } else { 0 };
    // SAFETY: as above.
    unsafe { flags.write_volatile(others | connected) };
    true
}

/// Notes that the connection of a full socket is let through to a listener of the fence's own, with one of the flags
/// in [`LET_THROUGH`]. `listener_ns` is the time at which the listener was made. Returns false if that could not be
/// noted.
#[inline(always)]
pub(crate) fn note_own(socket: *mut bpf_sock, netns: u64, flag: u32, listener_ns: u64) -> bool {
    let owner = storage_for_connection(socket, netns);
    if owner.is_null() {
        return false;
    }
    // SAFETY: as above.
    let listener = unsafe { &raw mut (*owner).listener_ns };
    // SAFETY: as above.
    unsafe { listener.write_volatile(listener_ns) };
    // SAFETY: as above.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above.
    let others = unsafe { flags.read_volatile() } & !LET_THROUGH;
    // SAFETY: as above.
    unsafe { flags.write_volatile(others | flag) };
    true
}

/// Returns the value of a full socket that is about to connect. If it has none, one is made; null if there is no
/// memory for it.
#[inline(always)]
fn storage_for_connection(socket: *mut bpf_sock, netns: u64) -> *mut Owner {
    let owner = storage(socket, core::ptr::null_mut());
    if !owner.is_null() {
        return owner;
    }
    let mut fresh = author_of(socket, netns);
    storage(socket, &raw mut fresh)
}

/// A connection that was let through to a listener of the fence's own.
pub(crate) struct LetThrough {
    /// The flags in [`LET_THROUGH`]; not zero.
    pub(crate) flags: u32,
    /// The time at which the listener of a pair was made.
    pub(crate) listener_ns: u64,
}

/// Returns how the connection of a full socket was let through to a listener of the fence's own, if it was.
#[inline(always)]
pub(crate) fn let_through(socket: *mut bpf_sock) -> Option<LetThrough> {
    let owner = read(socket)?;
    let flags = owner.flags & LET_THROUGH;
    (flags != 0).then_some(LetThrough {
        flags,
        listener_ns: owner.listener_ns,
    })
}

/// Whether a full socket was connected by a call instead of being created by the kernel for a listener, and its
/// connection is not to the host.
#[inline(always)]
pub(crate) fn connects_elsewhere(socket: *mut bpf_sock) -> bool {
    of(socket).is_some_and(|owner| owner.flags & CONNECTED_TO_HOST == 0)
}

/// Returns the owner to note for a socket that the kernel created. A subflow has the options of its MPTCP connection. The
/// options of a socket that came from a listener are unknown: it may have them from the listener.
#[inline(always)]
fn author_of(socket: *mut bpf_sock, netns: u64) -> Owner {
    if let Some(owner) = of_connection(socket) {
        return Owner {
            made_ns: owner.made_ns,
            // A subflow is in the namespace of its connection.
            flags: owner.flags & INSIDE,
            ..Owner::of(&owner.author())
        };
    }
    let caller = Author::current(netns);
    let author = if caller.is_outside() {
        Author::of_the_fence(netns)
    } else {
        caller
    };
    Owner {
        flags: UNKNOWN_OPTIONS,
        ..Owner::of(&author)
    }
}
