//! An iterator over the open files of all processes, for a fence that is attached to processes that run already: it notes
//! the owners of the sockets of its processes, and lists the sockets and devices that the fence does not judge.
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
    device::{MINOR_BITS, TUN, VHOST_NET, VHOST_VSOCK},
    listing::{DEVICE, OpenSocket},
};

use crate::{
    maps::{LISTING_OFFSETS, NETNS_OFFSETS, SOCKET_SOCK},
    subject::{
        author::Author,
        netns::{is_of_the_fence, read},
        owner,
        shown::{byte, half, shown, word},
        socket::{INET, INET6, LISTEN},
    },
};

/// TCP_CLOSE (net/tcp_states.h): neither connected nor listening.
const CLOSE: u32 = 7;

/// AF_PACKET, AF_VSOCK and AF_XDP (linux/socket.h): families that no program judges.
const UNJUDGED: [u32; 3] = [17, 40, 44];

/// The bits of `i_mode` with the type of a file (S_IFMT, linux/stat.h).
pub(crate) const TYPE: u16 = 0o170_000;
/// The type of a character device (S_IFCHR).
pub(crate) const CHARACTER: u16 = 0o020_000;

/// The size of a record.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const RECORD: u32 = size_of::<OpenSocket>() as u32;

/// An upper bound of offsets in a task: the verifier requires a bound for numbers that are added to a typed pointer.
const MOST: u32 = 0xffff;

/// An open file of a process of the fence.
struct Open {
    /// The `struct task_struct`.
    task: u64,
    /// The number of the descriptor.
    fd: u32,
    /// The file.
    file: *mut file,
}

/// Looks at the file of a context, if it is of a process of the fence.
#[inline(always)]
pub(crate) fn list(ctx: *const u64) -> i32 {
    let Some(open) = open(ctx) else {
        return 0;
    };
    // SAFETY: a file, not null.
    let socket = unsafe { bpf_sock_from_file(open.file) };
    if socket.is_null() {
        if let Some(seen) = device(&open) {
            write(ctx, &seen);
        }
        return 0;
    }
    let member = socket
        .cast::<u8>()
        .wrapping_add(SOCKET_SOCK.load() as usize);
    // SAFETY: `socket.sk`. The verifier knows the offset, and so the type of what is there.
    let sock = unsafe { member.cast::<*mut c_void>().read_volatile() };
    if sock.is_null() {
        return 0;
    }
    let seen = seen(&open, sock);
    let is_internet = seen.family == INET || seen.family == INET6;
    if is_internet && seen.is_of_the_fence != 0 {
        note(&open, sock, &seen);
    } else if is_internet || UNJUDGED.contains(&seen.family) {
        write(ctx, &seen);
    }
    0
}

/// Writes a record. If there is no room for it, the kernel repeats the program for this file.
#[inline(always)]
fn write(ctx: *const u64, seen: &OpenSocket) {
    // SAFETY: the first word of a context is the address of a `struct bpf_iter_meta`.
    let meta = unsafe { ctx.cast::<*const *mut seq_file>().read_volatile() };
    // SAFETY: its first member is the address of the output.
    let output = unsafe { meta.read_volatile() };
    // SAFETY: the output and a record.
    unsafe { bpf_seq_write(output, from_ref(seen).cast(), RECORD) };
}

/// Notes the owner of an internet socket that was made in the fence, unless a listener has made it.
#[inline(always)]
fn note(open: &Open, sock: *mut c_void, seen: &OpenSocket) {
    // Numbers that cannot be read are asked for later, too.
    if is_connected(seen) && is_accepted(sock, seen.protocol).unwrap_or(true) {
        return;
    }
    let offsets = LISTING_OFFSETS.load();
    let flags = read(sock as u64 + u64::from(offsets.flags & MOST));
    let broadcasts = (flags >> (offsets.broadcast & 63)) & 1 != 0;
    // If there is no memory for the note, the socket is refused what needs one; connections of TCP are looked for later.
    let _ = owner::note_old(sock, &author(open, seen), broadcasts);
}

/// Whether a TCP socket has a connection.
#[inline(always)]
fn is_connected(seen: &OpenSocket) -> bool {
    let is_tcp = seen.protocol == Protocol::TCP.0 || seen.protocol == Protocol::MPTCP.0;
    is_tcp && seen.state != CLOSE && seen.state != LISTEN
}

/// Whether a listener has accepted the connection of a TCP socket; `None` if its numbers change faster than they can be
/// read. An MPTCP connection is what its first subflow is.
#[inline(always)]
fn is_accepted(sock: *mut c_void, protocol: u32) -> Option<bool> {
    let offsets = LISTING_OFFSETS.load();
    let own = sock as u64;
    let numbers = if protocol == Protocol::TCP.0 {
        shown(|offset| own + u64::from(offset & MOST))
    } else {
        let subflow = read(own + u64::from(offsets.subflow & MOST));
        if offsets.subflow == 0 || subflow == 0 {
            return Some(false);
        }
        shown(|offset| subflow + u64::from(offset))
    };
    numbers.map(|numbers| numbers.is_accepted())
}

/// The open file of a context, if it is of a process of the fence.
#[inline(always)]
fn open(ctx: *const u64) -> Option<Open> {
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
    is_of_the_fence(read(cgroups + u64::from(offsets.default_cgroup))).then_some(Open {
        task,
        fd,
        file,
    })
}

/// A device that makes networks which the fence does not see, if the file is one.
#[inline(always)]
fn device(open: &Open) -> Option<OpenSocket> {
    let offsets = LISTING_OFFSETS.load();
    let inode = read(open.file as u64 + u64::from(offsets.inode & MOST));
    if half(inode + u64::from(offsets.mode)) & TYPE != CHARACTER {
        return None;
    }
    let numbers = word(inode + u64::from(offsets.numbers));
    let (major, minor) = (numbers >> MINOR_BITS, numbers & ((1 << MINOR_BITS) - 1));
    let is_misc = major == TUN.major
        && (minor == TUN.minor || minor == VHOST_NET.minor || minor == VHOST_VSOCK.minor);
    let is_tap = major != 0 && (major == offsets.taps[0] || major == offsets.taps[1]);
    (is_misc || is_tap).then(|| OpenSocket {
        pid: word(open.task + u64::from(offsets.task_process & MOST)),
        fd: open.fd,
        family: DEVICE,
        kind: major,
        port: minor,
        ..OpenSocket::default()
    })
}

#[inline(always)]
fn seen(open: &Open, sock: *mut c_void) -> OpenSocket {
    let offsets = LISTING_OFFSETS.load();
    let address = sock as u64;
    let at = |offset: u32| address + u64::from(offset & MOST);
    let netns = NETNS_OFFSETS.load();
    let cgroup = read(at(netns.sock_cgroup));
    let node = read(cgroup + u64::from(netns.cgroup_node));
    let namespace = read(at(netns.sock_net));
    OpenSocket {
        cgroup: read(node + u64::from(netns.node_id)),
        netns: read(namespace + u64::from(offsets.netns_cookie)),
        pid: word(open.task + u64::from(offsets.task_process & MOST)),
        fd: open.fd,
        family: u32::from(half(at(offsets.family))),
        kind: u32::from(half(at(offsets.kind))),
        protocol: u32::from(half(at(offsets.protocol))),
        port: u32::from(half(at(offsets.port))),
        state: u32::from(byte(at(offsets.state))),
        is_of_the_fence: is_of_the_fence(cgroup).into(),
    }
}

/// The process that has a socket open.
#[inline(always)]
fn author(open: &Open, seen: &OpenSocket) -> Author {
    let offsets = LISTING_OFFSETS.load();
    let at = |offset: u32| open.task + u64::from(offset & MOST);
    let credentials = read(at(offsets.task_credentials));
    // SAFETY: the helper fails for addresses that cannot be read.
    let comm = unsafe { bpf_probe_read_kernel(at(offsets.task_name) as *const Comm) };
    Author {
        pid: seen.pid,
        tid: word(at(offsets.task_thread)),
        uid: word(credentials + u64::from(offsets.user)),
        flags: 0,
        netns: seen.netns,
        comm: comm.unwrap_or(Comm::NONE),
        cgroup: seen.cgroup,
    }
}
