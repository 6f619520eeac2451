//! The owner of a socket, noted when the socket is created: packets can also leave while another process, or none, is
//! running.

use core::ffi::c_void;

mod connection;
mod marks;

pub(crate) use connection::{LetThrough, connects_elsewhere, let_through, note_connection};
pub(crate) use marks::{
    mark_broadcaster, mark_guest, mark_options, mark_other_port, mark_question, may_broadcast,
    only_asks_nameservers,
};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{
        bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns, bpf_sk_storage_get, bpf_skb_cgroup_id,
        bpf_skc_to_mptcp_sock,
    },
    programs::SockContext,
};
use qfence_common::{
    Comm, NO_UID,
    event::GUEST,
    netns::INSIDE,
    own::{Made, UNKNOWN_OPTIONS},
    verdict::{FOREIGN_NETNS, SOCKET_KIND},
};

use crate::{
    maps::{FINDS_MPTCP, OPTIONS_UNSEEN, OWNERS},
    subject::{
        author::Author,
        netns::{Place, is_home, is_of_workload},
    },
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
    /// The time at which the socket was made, in nanoseconds since boot.
    made_ns: u64,
    /// If the connection was let through as that of a pair: the time at which its listener was made.
    listener_ns: u64,
    pid: u32,
    tid: u32,
    uid: u32,
    /// [`GUEST`], [`BROADCASTER`], [`CONNECTED_TO_HOST`], [`FOREIGN`], [`ODD_KIND`], [`INSIDE`], and the flags in
    /// [`qfence_common::own`]. When a flag is set, the kernel has locked the socket.
    flags: u32,
}

// No padding: before Linux 6.3 the verifier rejects a value that is partly uninitialised.
const _: () = assert!(size_of::<Owner>() == size_of::<Comm>() + 4 * 8 + 4 * 4);

// qfence reads the flags by sock_diag, as the last word of the value.
const _: () = assert!(core::mem::offset_of!(Owner, flags) + 4 == size_of::<Owner>());

/// The socket may broadcast (SO_BROADCAST).
const BROADCASTER: u32 = 1 << 1;

/// Monitor mode let the socket be created although it would be refused: because it is in a network namespace that was
/// made outside the fence (`FOREIGN`), or because of its type or protocol (`ODD_KIND`).
const FOREIGN: u32 = 1 << 3;
const ODD_KIND: u32 = 1 << 4;

/// The UDP socket was allowed to send a datagram, or to connect, to the nameserver port of the host.
const ASKS_NAMESERVER: u32 = 1 << 12;

/// A call named another port than that of nameservers as the destination of the UDP socket.
const NAMES_OTHER_PORT: u32 = 1 << 13;

/// The TCP connection of the socket was allowed to the host, so its packets to the host are allowed as well.
const CONNECTED_TO_HOST: u32 = 1 << 2;

/// Notes the owner of a new socket. `place` is the relation of its network namespace to the fence, and `against` the rule
/// by which the socket would be refused if the policy were enforced. If there is no memory for the note, the socket is
/// created nevertheless: its traffic is judged, records of it do not name the process, the reply exception does not apply
/// to it, and it cannot connect by TCP.
#[inline(always)]
pub(crate) fn note(ctx: &SockContext, author: &Author, place: Place, against: Option<u32>) {
    let mut owner = Owner::of(author);
    owner.flags = match against {
        Some(FOREIGN_NETNS) => FOREIGN,
        Some(_) => ODD_KIND,
        None => 0,
    };
    if place == Place::Inside {
        owner.flags |= INSIDE;
    }
    if OPTIONS_UNSEEN.load() != 0 {
        owner.flags |= UNKNOWN_OPTIONS;
    }
    storage(ctx.sock.cast(), &raw mut owner);
}

/// Notes the owner of a socket that was made before the programs were attached, unless it has one. `socket` is a
/// `struct sock` that an iterator has found, or a full socket; `broadcasts` is whether it has SO_BROADCAST. Its other options
/// and its earlier destinations are unknown, so it does not count as one that only asks nameservers. Whether its connection is
/// to the host is unknown, too: it is judged like all that stood when the policy was changed, by which it can be reset.
/// Returns false if there is no memory for it.
#[inline(always)]
pub(crate) fn note_old(socket: *mut c_void, author: &Author, broadcasts: bool) -> bool {
    let mut owner = Owner::of(author);
    owner.flags = UNKNOWN_OPTIONS | CONNECTED_TO_HOST | NAMES_OTHER_PORT;
    if broadcasts {
        owner.flags |= BROADCASTER;
    }
    !storage(socket.cast(), &raw mut owner).is_null()
}

/// Returns how a full socket of the fence was made. A flag counts if either the socket or the MPTCP connection of which
/// it is a subflow has it.
#[inline(always)]
pub(crate) fn made(socket: *mut bpf_sock) -> Option<Made> {
    // Copies instead of pointers: the compiler would combine the tests of two pointers for null, which the verifier
    // rejects.
    let mut made = read(socket).map_or(Made::UNKNOWN, Owner::made);
    if let Some(connection) = of_connection(socket) {
        if made.ns == 0 {
            made = connection.made();
        }
        made.flags |= connection.flags;
    }
    (made.ns != 0).then_some(made)
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

/// Whether a full socket is in a network namespace that was made in the fence. With `in_pod`, that of the workload that the
/// fence is attached to counts as well, if it is not the host's.
#[inline(always)]
pub(crate) fn is_inside(socket: *mut bpf_sock, in_pod: bool) -> bool {
    of(socket).is_some_and(|owner| {
        owner.flags & INSIDE != 0 || (in_pod && is_of_workload(owner.netns) && is_home(owner.netns))
    })
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

/// Returns the id of the cgroup in which a full socket was made; that of the current process if it is not known.
#[inline(always)]
pub(crate) fn maker(socket: *mut bpf_sock) -> u64 {
    match of(socket) {
        Some(owner) => owner.cgroup,
        // SAFETY: a helper without arguments.
        None => unsafe { bpf_get_current_cgroup_id() },
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
            // SAFETY: a helper without arguments.
            made_ns: unsafe { bpf_ktime_get_boot_ns() },
            listener_ns: 0,
            flags: 0,
        }
    }

    #[inline(always)]
    fn made(&self) -> Made {
        Made {
            tid: self.tid,
            flags: self.flags,
            ns: self.made_ns,
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
