//! Notes about a connection: whether it is to the host, and whether it was let through to a listener of the fence.

use aya_ebpf::bindings::bpf_sock;
use qfence_common::{
    netns::INSIDE,
    own::{LET_THROUGH, PAIR, UNKNOWN_OPTIONS},
};

use super::{CONNECTED_TO_HOST, Owner, of, of_connection, read, storage};
use crate::subject::author::Author;

/// Notes whether a full socket that is about to connect connects to an address that is known to be the host's. Then the
/// packets of the connection do not count as a sign of an address that has become local. A socket that the kernel
/// created has no owner yet: one that came from a listener and connects again, or a subflow of an MPTCP connection,
/// whose owner is that of the connection. It also notes how the connection was let through to a listener of the fence's
/// own, with flags 0 if it was not. Returns false if that could not be noted: a connection without an owner would count as
/// incoming.
#[inline(always)]
pub(crate) fn note_connection(
    socket: *mut bpf_sock,
    netns: u64,
    to_host: bool,
    through: &LetThrough,
) -> bool {
    let owner = storage_for_connection(socket, netns);
    if owner.is_null() {
        return false;
    }
    if through.flags != 0 {
        // SAFETY: a value of the map, aligned and alive as long as the program runs.
        let listener = unsafe { &raw mut (*owner).listener_ns };
        // SAFETY: as above.
        unsafe { listener.write_volatile(through.listener_ns) };
    }
    // SAFETY: as above.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    let others = unsafe { flags.read_volatile() } & !CONNECTED_TO_HOST & !LET_THROUGH;
    let connected = if to_host { CONNECTED_TO_HOST } else { 0 };
    // SAFETY: as above.
    unsafe { flags.write_volatile(others | connected | through.flags) };
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
    /// The flags in [`LET_THROUGH`].
    pub(crate) flags: u32,
    /// The time at which the listener was made.
    pub(crate) listener_ns: u64,
}

impl LetThrough {
    /// The time at which the listener must have been made; 0 if that does not matter.
    #[inline(always)]
    pub(crate) const fn expected(&self) -> u64 {
        if self.flags & PAIR != 0 {
            self.listener_ns
        } else {
            0
        }
    }
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
