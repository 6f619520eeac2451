//! Who made a socket, and where: packets also leave while another process, or none, is running.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_sk_storage_get, bpf_skb_cgroup_id, bpf_skc_to_mptcp_sock},
    programs::SockContext,
};
use qfence_common::{
    Comm, NO_UID,
    event::GUEST,
    verdict::{FOREIGN_NETNS, SOCKET_KIND},
};

use crate::{
    maps::{FINDS_MPTCP, OWNERS},
    subject::author::Author,
};

/// The process that made a socket, and the socket's network namespace; the value of the storage.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Owner {
    comm: Comm,
    /// Its cookie. Programs for packets have no helper to ask for it before Linux 5.14.
    netns: u64,
    /// The id of the process's cgroup.
    cgroup: u64,
    pid: u32,
    tid: u32,
    uid: u32,
    /// [`GUEST`], [`BROADCASTER`], [`CONNECTED_TO_HOST`], [`FOREIGN`] and [`ODD_KIND`]. The kernel holds the socket's lock where one is set.
    flags: u32,
}

// Without holes: before Linux 6.3 the verifier takes no value of which part is uninitialised.
const _: () = assert!(size_of::<Owner>() == size_of::<Comm>() + 2 * 8 + 4 * 4);

/// The socket may broadcast (SO_BROADCAST).
const BROADCASTER: u32 = 1 << 1;

/// The socket is one that is refused, and that monitor mode let be made: it is in a network namespace that was made
/// outside the fence, or else of a kind that is refused.
const FOREIGN: u32 = 1 << 3;
const ODD_KIND: u32 = 1 << 4;

/// The socket may go on with its TCP connection although its packets go to the host.
const CONNECTED_TO_HOST: u32 = 1 << 2;

/// Notes who makes a socket, and the rule by which it would be refused if the policy were not only monitored. Without room for it the socket is made all the same: what it sends is
/// judged, the record of a refusal says nothing of the process, it can answer nobody, and it cannot connect by TCP.
#[inline(always)]
pub(crate) fn note(ctx: &SockContext, author: &Author, against: Option<u32>) {
    let mut owner = Owner::of(author);
    owner.flags = match against {
        Some(FOREIGN_NETNS) => FOREIGN,
        Some(_) => ODD_KIND,
        None => 0,
    };
    storage(ctx.sock.cast(), &raw mut owner);
}

/// Notes of a whole socket that is about to connect whether that is to what is known to be the host, so that the
/// packets of the connection are no sign of an address that turned local. A socket that the kernel made has no owner
/// yet: one that came out of a listener and connects anew, or a way of an MPTCP connection, of which the owner is the
/// connection's. Returns whether it could be noted: a connection without an owner would be taken for one that came in.
#[inline(always)]
pub(crate) fn note_connection(socket: *mut bpf_sock, netns: u64, to_host: bool) -> bool {
    let mut owner = storage(socket, core::ptr::null_mut());
    if owner.is_null() {
        let mut fresh = author_of(socket, netns);
        owner = storage(socket, &raw mut fresh);
    }
    if owner.is_null() {
        return false;
    }
    // SAFETY: a value of the map's, aligned, which stays as long as the program runs.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above; a word, which others see whole.
    let others = unsafe { flags.read_volatile() } & !CONNECTED_TO_HOST;
    let connected = if to_host { CONNECTED_TO_HOST } else { 0 };
    // SAFETY: as above.
    unsafe { flags.write_volatile(others | connected) };
    true
}

/// Notes that a whole socket is one of a guest's connections.
#[inline(always)]
pub(crate) fn mark_guest(socket: *mut bpf_sock) {
    // Without a note the connection is taken for the emulator's own.
    let _ = mark(socket, GUEST);
}

/// Notes that a whole socket may broadcast; whether that could be noted.
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
    // SAFETY: as above.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above.
    let before = unsafe { flags.read_volatile() };
    // SAFETY: as above.
    unsafe { flags.write_volatile(before | flag) };
    true
}

/// Whether a whole socket was connected by a call, and not made by the kernel for a listener, and has not been let
/// connect to the host.
#[inline(always)]
pub(crate) fn connects_elsewhere(socket: *mut bpf_sock) -> bool {
    of(socket).is_some_and(|owner| owner.flags & CONNECTED_TO_HOST == 0)
}

/// The cookie of the network namespace of a whole socket that was made by a call.
#[inline(always)]
pub(crate) fn netns(socket: *mut bpf_sock) -> Option<u64> {
    read(socket).map(|owner| owner.netns)
}

/// Why a whole socket would not have been let be made, if monitor mode did that: the number of a rule.
#[inline(always)]
pub(crate) fn reason_against(socket: *mut bpf_sock) -> Option<u32> {
    let flags = of(socket)?.flags;
    if flags & FOREIGN != 0 {
        Some(FOREIGN_NETNS)
    } else if flags & ODD_KIND != 0 {
        Some(SOCKET_KIND)
    } else {
        None
    }
}

/// Whether a whole socket may broadcast.
#[inline(always)]
pub(crate) fn may_broadcast(socket: *mut bpf_sock) -> bool {
    read(socket).is_some_and(|owner| owner.flags & BROADCASTER != 0)
}

/// Who is behind a packet; `socket` is a whole one, or null.
#[inline(always)]
pub(crate) fn author(packet: *mut __sk_buff, socket: *mut bpf_sock) -> Author {
    let owner = if socket.is_null() { None } else { of(socket) };
    // SAFETY: the hook's own packet.
    let cgroup = unsafe { bpf_skb_cgroup_id(packet) };
    match owner {
        Some(owner) => Author {
            cgroup,
            ..owner.author()
        },
        None => Author {
            pid: 0,
            tid: 0,
            uid: NO_UID,
            flags: 0,
            netns: 0,
            comm: Comm::NONE,
            cgroup,
        },
    }
}

/// Who is behind a call on a whole socket: who makes it, or the socket's owner where that is the kernel (the ways that
/// MPTCP opens by itself are opened by a kernel thread).
#[inline(always)]
pub(crate) fn caller(socket: *mut bpf_sock, netns: u64) -> Author {
    let caller = Author::current(netns);
    match of(socket) {
        Some(owner) if caller.is_outside() => owner.author(),
        Some(owner) => Author {
            flags: owner.flags & GUEST,
            ..caller
        },
        None if caller.is_outside() => Author::of_the_fence(netns),
        None => caller,
    }
}

/// What is noted of a whole socket, or of the MPTCP connection that it is a way of.
#[inline(always)]
pub(crate) fn of<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    read(socket).or_else(|| of_connection(socket))
}

impl Owner {
    #[inline(always)]
    fn of(author: &Author) -> Self {
        Self {
            comm: author.comm,
            netns: author.netns,
            cgroup: author.cgroup,
            pid: author.pid,
            tid: author.tid,
            uid: author.uid,
            flags: 0,
        }
    }

    #[inline(always)]
    fn author(&self) -> Author {
        Author {
            pid: self.pid,
            tid: self.tid,
            uid: self.uid,
            flags: self.flags & GUEST,
            netns: self.netns,
            comm: self.comm,
            cgroup: self.cgroup,
        }
    }
}

/// What there is to note of a socket that the kernel made.
#[inline(always)]
fn author_of(socket: *mut bpf_sock, netns: u64) -> Owner {
    match of_connection(socket) {
        Some(owner) => Owner::of(&owner.author()),
        None => {
            let caller = Author::current(netns);
            if caller.is_outside() {
                return Owner::of(&Author::of_the_fence(netns));
            }
            Owner::of(&caller)
        }
    }
}

/// What is noted of the MPTCP connection that a whole socket is a way of.
#[inline(always)]
fn of_connection<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    if FINDS_MPTCP.load() == 0 {
        return None;
    }
    // SAFETY: a socket, not null.
    let connection = unsafe { bpf_skc_to_mptcp_sock(socket.cast()) };
    if connection.is_null() {
        return None;
    }
    read(connection.cast())
}

/// What is noted of a whole socket itself.
#[inline(always)]
fn read<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    // SAFETY: null, or a value of the map's, which stays readable until the program ends (RCU).
    unsafe { storage(socket, core::ptr::null_mut()).as_ref() }
}

/// A whole socket's value in the storage, made from `fresh` if that is not null and there is none; null if there is
/// none.
#[inline(always)]
fn storage(socket: *mut bpf_sock, fresh: *mut Owner) -> *mut Owner {
    let flags = if fresh.is_null() {
        0
    } else {
        u64::from(BPF_SK_STORAGE_GET_F_CREATE)
    };
    // SAFETY: the map is a storage of owners, the socket is a whole one, and `fresh` is null or a whole value of the
    // map's type, which the kernel copies.
    let owner = unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&OWNERS).cast_mut().cast(),
            socket.cast(),
            fresh.cast(),
            flags,
        )
    };
    owner.cast()
}
