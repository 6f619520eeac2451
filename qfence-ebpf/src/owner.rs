//! Who made a socket, and where: packets also leave while another process, or none, is running.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::{bpf_get_netns_cookie, bpf_sk_storage_get, bpf_skb_cgroup_id},
    programs::SockContext,
};

use crate::{maps::OWNERS, record::Author};

/// The process that made a socket, and the socket's network namespace; the value of the storage.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Owner {
    /// Its cookie. Programs for packets have no helper to ask for it before Linux 5.14.
    netns: u64,
    pid: u32,
    comm: [u8; 16],
    reserved: u32,
}

/// Notes who makes a socket. Without room for it the socket is made all the same: what it sends is
/// judged, the record of a refusal says nothing of the process, and it can answer nobody.
#[inline(always)]
pub(crate) fn note(ctx: &SockContext, author: &Author) {
    let mut owner = Owner {
        // SAFETY: the hook's own context.
        netns: unsafe { bpf_get_netns_cookie(ctx.sock.cast()) },
        pid: author.pid,
        comm: author.comm,
        reserved: 0,
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

/// Whether a whole socket was made by a call, not by the kernel for a listener.
#[inline(always)]
pub(crate) fn is_known(socket: *mut bpf_sock) -> bool {
    find(socket).is_some()
}

/// The cookie of the network namespace of a whole socket that was made by a call.
#[inline(always)]
pub(crate) fn netns(socket: *mut bpf_sock) -> Option<u64> {
    find(socket).map(|owner| owner.netns)
}

/// Who is behind a packet; `socket` is a whole one, or null.
#[inline(always)]
pub(crate) fn author(packet: *mut __sk_buff, socket: *mut bpf_sock) -> Author {
    let owner = if socket.is_null() { None } else { find(socket) };
    Author {
        pid: owner.map_or(0, |owner| owner.pid),
        comm: owner.map_or([0; 16], |owner| owner.comm),
        // SAFETY: the hook's own packet.
        cgroup: unsafe { bpf_skb_cgroup_id(packet) },
    }
}

/// What was noted of a whole socket.
#[inline(always)]
fn find<'a>(socket: *mut bpf_sock) -> Option<&'a Owner> {
    // SAFETY: as in `note`; without the flag nothing is made, and the value is not looked at.
    let owner = unsafe {
        bpf_sk_storage_get(
            core::ptr::from_ref(&OWNERS).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    // SAFETY: null, or a value of the map's, which stays readable until the program ends (RCU).
    unsafe { owner.cast::<Owner>().as_ref() }
}
