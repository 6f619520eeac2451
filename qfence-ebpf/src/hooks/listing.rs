//! Iterators over the open files of all processes, for a fence that is attached to processes that run already: they list
//! the sockets of its processes, and note their owners.
//!
//! A program for an iterator gets the addresses of the task and of the file as typed pointers. Everything but the socket is
//! read through plain addresses.

use core::{ffi::c_void, ptr::from_ref};

use aya_ebpf::{
    bindings::{file, seq_file},
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_seq_write, bpf_sock_from_file},
    },
};
use qfence_common::{
    Comm, Protocol,
    listing::{OpenPort, OpenSocket},
};

use crate::{
    maps::{LISTING_OFFSETS, NETNS_OFFSETS, OPEN_PORTS, SOCKET_SOCK},
    subject::{
        author::Author,
        netns::{is_of_the_fence, read},
        owner,
        socket::{INET, INET6, LISTEN},
    },
};

/// TCP_CLOSE (net/tcp_states.h): neither connected nor listening.
const CLOSE: u32 = 7;

/// The size of a record.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const RECORD: u32 = size_of::<OpenSocket>() as u32;

/// An upper bound of offsets in a task: the verifier requires a bound for numbers that are added to a typed pointer.
const MOST: u32 = 0xffff;

/// A socket of a process of the fence.
struct Found {
    /// The `struct task_struct`.
    task: u64,
    /// The `struct sock`.
    socket: *mut c_void,
    seen: OpenSocket,
}

/// Lists the file of a context, if it is a socket of a process of the fence, and notes its port if it listens.
#[inline(always)]
pub(crate) fn list(ctx: *const u64) -> i32 {
    let Some(Found { seen, .. }) = find(ctx) else {
        return 0;
    };
    if is_tcp(&seen) && seen.state == LISTEN {
        // Without room for it, connections to it count as opened by the fence.
        let _ = OPEN_PORTS.insert(port_of(&seen), 1, 0);
    }
    // SAFETY: the first word of a context is the address of a `struct bpf_iter_meta`.
    let meta = unsafe { ctx.cast::<*const *mut seq_file>().read_volatile() };
    // SAFETY: its first member is the address of the output.
    let output = unsafe { meta.read_volatile() };
    // SAFETY: the output and a record. If there is no room for it, the kernel repeats the program for this file.
    unsafe { bpf_seq_write(output, from_ref(&seen).cast(), RECORD) };
    0
}

/// Notes the owner of the file of a context, if it is an internet socket that was made in the fence, and that no listener
/// has accepted.
#[inline(always)]
pub(crate) fn note(ctx: *const u64) -> i32 {
    let Some(found) = find(ctx) else {
        return 0;
    };
    let seen = &found.seen;
    let is_internet = seen.family == INET || seen.family == INET6;
    let is_connected = is_tcp(seen) && seen.state != CLOSE && seen.state != LISTEN;
    if seen.is_of_the_fence == 0 || !is_internet {
        return 0;
    }
    if is_connected && OPEN_PORTS.get_ptr(port_of(seen)).is_some() {
        return 0;
    }
    owner::note_old(found.socket, &author(&found));
    0
}

/// The socket of a context, if it is of a process of the fence.
#[inline(always)]
fn find(ctx: *const u64) -> Option<Found> {
    // SAFETY: the second word of a context is the address of the task, or zero.
    let task = unsafe { ctx.wrapping_add(1).read_volatile() };
    // SAFETY: the third is the number of the descriptor.
    let fd = unsafe { ctx.wrapping_add(2).cast::<u32>().read_volatile() };
    // SAFETY: the fourth is the address of the file, or zero.
    let file = unsafe { ctx.wrapping_add(3).cast::<*mut file>().read_volatile() };
    if task == 0 || file.is_null() {
        return None;
    }
    let offsets = LISTING_OFFSETS.load();
    let cgroups = read(task + u64::from(offsets.task_cgroups & MOST));
    if !is_of_the_fence(read(cgroups + u64::from(offsets.default_cgroup))) {
        return None;
    }
    // SAFETY: a file, not null.
    let socket = unsafe { bpf_sock_from_file(file) };
    if socket.is_null() {
        return None;
    }
    let member = socket
        .cast::<u8>()
        .wrapping_add(SOCKET_SOCK.load() as usize);
    // SAFETY: `socket.sk`. The verifier knows the offset, and so the type of what is there.
    let sock = unsafe { member.cast::<*mut c_void>().read_volatile() };
    if sock.is_null() {
        return None;
    }
    let address = sock as u64;
    let at = |offset: u32| address + u64::from(offset & MOST);
    let netns = NETNS_OFFSETS.load();
    let cgroup = read(at(netns.sock_cgroup));
    let node = read(cgroup + u64::from(netns.cgroup_node));
    let namespace = read(at(netns.sock_net));
    Some(Found {
        task,
        socket: sock,
        seen: OpenSocket {
            cgroup: read(node + u64::from(netns.node_id)),
            netns: read(namespace + u64::from(offsets.netns_cookie)),
            pid: read_word(task + u64::from(offsets.task_process & MOST)),
            fd,
            family: u32::from(read_half(at(offsets.family))),
            kind: u32::from(read_half(at(offsets.kind))),
            protocol: u32::from(read_half(at(offsets.protocol))),
            port: u32::from(read_half(at(offsets.port))),
            state: u32::from(read_byte(at(offsets.state))),
            is_of_the_fence: is_of_the_fence(cgroup).into(),
        },
    })
}

/// The process that has a socket open.
#[inline(always)]
fn author(found: &Found) -> Author {
    let offsets = LISTING_OFFSETS.load();
    let at = |offset: u32| found.task + u64::from(offset & MOST);
    let credentials = read(at(offsets.task_credentials));
    // SAFETY: the helper fails for addresses that cannot be read.
    let comm = unsafe { bpf_probe_read_kernel(at(offsets.task_name) as *const Comm) };
    Author {
        pid: found.seen.pid,
        tid: read_word(at(offsets.task_thread)),
        uid: read_word(credentials + u64::from(offsets.user)),
        flags: 0,
        netns: found.seen.netns,
        comm: comm.unwrap_or(Comm::NONE),
        cgroup: found.seen.cgroup,
    }
}

#[inline(always)]
fn is_tcp(seen: &OpenSocket) -> bool {
    seen.protocol == Protocol::TCP.0 || seen.protocol == Protocol::MPTCP.0
}

#[inline(always)]
fn port_of(seen: &OpenSocket) -> OpenPort {
    OpenPort {
        netns: seen.netns,
        port: seen.port,
        reserved: 0,
    }
}

/// Reads four bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
fn read_word(address: u64) -> u32 {
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const u32) }.unwrap_or(0)
}

/// Reads two bytes of kernel memory; 0 if they cannot be read.
#[inline(always)]
fn read_half(address: u64) -> u16 {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u16) }.unwrap_or(0)
}

/// Reads a byte of kernel memory; 0 if it cannot be read.
#[inline(always)]
fn read_byte(address: u64) -> u8 {
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel(address as *const u8) }.unwrap_or(0)
}
