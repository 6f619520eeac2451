//! Who made a socket, and where: packets also leave while another process, or none, is running.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_sk_storage_get, bpf_skb_cgroup_id},
    programs::SockContext,
};
use qfence_common::{Comm, NO_UID};

use crate::{maps::OWNERS, record::Author};

/// The process that made a socket, and the socket's network namespace; the value of the storage.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Owner {
    comm: Comm,
    /// Its cookie. Programs for packets have no helper to ask for it before Linux 5.14.
    netns: u64,
    pid: u32,
    tid: u32,
    uid: u32,
    /// Whether it may go on with its TCP connection although its packets go to the host: 0 or 1.
    connected_to_host: u32,
}

// Without holes: before Linux 6.3 the verifier takes no value of which part is uninitialised.
const _: () = assert!(size_of::<Owner>() == size_of::<Comm>() + 8 + 4 * 4);

/// Notes who makes a socket. Without room for it the socket is made all the same: what it sends is
/// judged, the record of a refusal says nothing of the process, and it can answer nobody.
#[inline(always)]
pub(crate) fn note(ctx: &SockContext, author: &Author) {
    let mut owner = Owner {
        comm: author.comm,
        netns: author.netns,
        pid: author.pid,
        tid: author.tid,
        uid: author.uid,
        connected_to_host: 0,
    };
    // SAFETY: the map is a storage of owners, the socket is the hook's own, and `owner` is a whole
    // value of the map's type, which the kernel copies.
    unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&OWNERS).cast_mut().cast(),
            ctx.sock.cast(),
            core::ptr::from_mut(&mut owner).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
}

/// Notes whether a whole socket is let connect to what is known to be the host, so that the packets of
/// the connection are no sign of an address that turned local.
#[inline(always)]
pub(crate) fn note_connection(socket: *mut bpf_sock, to_host: bool) {
    let owner = find(socket);
    if !owner.is_null() {
        // SAFETY: a value of the map's, aligned, which stays as long as the program runs.
        let noted = unsafe { &raw mut (*owner).connected_to_host };
        // SAFETY: as above; a word, which others see whole.
        unsafe { noted.write_volatile(u32::from(to_host)) };
    }
}

/// Whether a whole socket was made by a call, not by the kernel for a listener, and has not been let
/// connect to the host.
#[inline(always)]
pub(crate) fn connects_elsewhere(socket: *mut bpf_sock) -> bool {
    read(socket).is_some_and(|owner| owner.connected_to_host == 0)
}

/// The cookie of the network namespace of a whole socket that was made by a call.
#[inline(always)]
pub(crate) fn netns(socket: *mut bpf_sock) -> Option<u64> {
    read(socket).map(|owner| owner.netns)
}

/// Who is behind a packet; `socket` is a whole one, or null.
#[inline(always)]
pub(crate) fn author(packet: *mut __sk_buff, socket: *mut bpf_sock) -> Author {
    let owner = if socket.is_null() { None } else { read(socket) };
    Author {
        pid: owner.map_or(0, |owner| owner.pid),
        tid: owner.map_or(0, |owner| owner.tid),
        uid: owner.map_or(NO_UID, |owner| owner.uid),
        netns: owner.map_or(0, |owner| owner.netns),
        comm: owner.map_or(Comm::NONE, |owner| owner.comm),
        // SAFETY: the hook's own packet.
        cgroup: unsafe { bpf_skb_cgroup_id(packet) },
    }
}

/// What was noted of a whole socket.
#[inline(always)]
fn read<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    // SAFETY: null, or a value of the map's, which stays readable until the program ends (RCU).
    unsafe { find(socket).as_ref() }
}

#[inline(always)]
fn find(socket: *mut bpf_sock) -> *mut Owner {
    // SAFETY: as in `note`; without the flag nothing is made, and the value is not looked at.
    let owner = unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&OWNERS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    owner.cast()
}
