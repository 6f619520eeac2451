//! The owner of a socket, noted when the socket is created: packets can also leave while another process, or none, is
//! running.

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

/// The process that created a socket, and the socket's network namespace. The value of the socket storage.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Owner {
    comm: Comm,
    /// The cookie of the network namespace. Before Linux 5.14 programs for packets have no helper for it.
    netns: u64,
    /// The id of the process's cgroup.
    cgroup: u64,
    pid: u32,
    tid: u32,
    uid: u32,
    /// [`GUEST`], [`BROADCASTER`], [`CONNECTED_TO_HOST`], [`FOREIGN`] and [`ODD_KIND`]. When a flag is set, the kernel
    /// has locked the socket.
    flags: u32,
}

// No padding: before Linux 6.3 the verifier rejects a value that is partly uninitialised.
const _: () = assert!(size_of::<Owner>() == size_of::<Comm>() + 2 * 8 + 4 * 4);

/// The socket may broadcast (SO_BROADCAST).
const BROADCASTER: u32 = 1 << 1;

/// Monitor mode let the socket be created although it would be refused: because it is in a network namespace that was
/// made outside the fence (`FOREIGN`), or because of its type or protocol (`ODD_KIND`).
const FOREIGN: u32 = 1 << 3;
const ODD_KIND: u32 = 1 << 4;

/// The socket was allowed to send a datagram to the nameserver port of the host.
const ASKS_NAMESERVER: u32 = 1 << 12;

/// The TCP connection of the socket was allowed to the host, so its packets to the host are allowed as well.
const CONNECTED_TO_HOST: u32 = 1 << 2;

/// Notes the owner of a new socket, and the rule by which the socket would be refused if the policy were enforced. If
/// there is no memory for the note, the socket is created nevertheless: its traffic is judged, records of it do not
/// name the process, the reply exception does not apply to it, and it cannot connect by TCP.
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

/// Notes whether a full socket that is about to connect connects to an address that is known to be the host's. Then the
/// packets of the connection do not count as a sign of an address that has become local. A socket that the kernel
/// created has no owner yet: one that came from a listener and connects again, or a subflow of an MPTCP connection,
/// whose owner is that of the connection. Returns false if that could not be noted: a connection without an owner would
/// count as incoming.
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
    // SAFETY: a value of the map, aligned and alive as long as the program runs.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    let others = unsafe { flags.read_volatile() } & !CONNECTED_TO_HOST;
    let connected = if to_host { CONNECTED_TO_HOST } else { 0 };
    // SAFETY: as above.
    unsafe { flags.write_volatile(others | connected) };
    true
}

/// Notes that a full socket is a guest's connection.
#[inline(always)]
pub(crate) fn mark_guest(socket: *mut bpf_sock) {
    // If this fails, the connection counts as the emulator's own.
    let _ = mark(socket, GUEST);
}

/// Notes that a full socket was allowed to send a datagram to the nameserver port of the host.
#[inline(always)]
pub(crate) fn mark_question(socket: *mut bpf_sock) {
    // If this fails, a datagram that is redirected to another port is refused.
    let _ = mark(socket, ASKS_NAMESERVER);
}

/// Whether a full socket was allowed to send a datagram to the nameserver port of the host.
#[inline(always)]
pub(crate) fn asks_nameserver(socket: *mut bpf_sock) -> bool {
    read(socket).is_some_and(|owner| owner.flags & ASKS_NAMESERVER != 0)
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
    // SAFETY: as above.
    let flags = unsafe { &raw mut (*owner).flags };
    // SAFETY: as above.
    let before = unsafe { flags.read_volatile() };
    // SAFETY: as above.
    unsafe { flags.write_volatile(before | flag) };
    true
}

/// Whether a full socket was connected by a call instead of being created by the kernel for a listener, and its
/// connection is not to the host.
#[inline(always)]
pub(crate) fn connects_elsewhere(socket: *mut bpf_sock) -> bool {
    of(socket).is_some_and(|owner| owner.flags & CONNECTED_TO_HOST == 0)
}

/// Returns the cookie of the network namespace of a full socket that was created by a call.
#[inline(always)]
pub(crate) fn netns(socket: *mut bpf_sock) -> Option<u64> {
    read(socket).map(|owner| owner.netns)
}

/// Returns the number of the rule by which a full socket would have been refused, if only monitor mode let it be
/// created.
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

/// Whether a full socket may broadcast.
#[inline(always)]
pub(crate) fn may_broadcast(socket: *mut bpf_sock) -> bool {
    read(socket).is_some_and(|owner| owner.flags & BROADCASTER != 0)
}

/// Returns the process behind a packet. `socket` is a full socket, or null.
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

/// Returns the process behind a call on a full socket: the caller, or the socket's owner if the caller is the kernel (a
/// kernel thread opens the subflows that MPTCP creates by itself).
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

/// Returns the owner of a full socket, or of the MPTCP connection of which it is a subflow.
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

/// Returns the owner to note for a socket that the kernel created.
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

/// Returns the owner of the MPTCP connection of which a full socket is a subflow.
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

/// Returns the owner noted for this full socket itself.
#[inline(always)]
fn read<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    // SAFETY: null, or a value of the map, which stays readable until the program ends (RCU).
    unsafe { storage(socket, core::ptr::null_mut()).as_ref() }
}

/// Returns the value of a full socket in the storage. If there is none, it is created from `fresh`; null if `fresh` is
/// null, or there is no memory.
#[inline(always)]
fn storage(socket: *mut bpf_sock, fresh: *mut Owner) -> *mut Owner {
    let flags = if fresh.is_null() {
        0
    } else {
        u64::from(BPF_SK_STORAGE_GET_F_CREATE)
    };
    // SAFETY: the map is a socket storage of owners. The socket is a full socket. `fresh` is null or a complete value
    // of the map's type, which the kernel copies.
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
