//! The hook for socket options: judges the options through which a socket could reach the host without passing another
//! hook, and notes those that show the purpose of a socket.

use aya_ebpf::{bindings::bpf_sock, programs::SockoptContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Protocol,
    own::{REUSE_ADDR, REUSE_PORT, TOUCHED},
    verdict::{BROADCAST, MONITOR, UNPARSED},
};

use crate::{
    account::{
        PROCEED, REJECT,
        count::hit,
        record::{Refusal, refuse},
    },
    judge::policy::{allows_broadcasts, monitors, verdict},
    maps::marks,
    subject::{
        author::Author,
        netns::is_home,
        owner,
        socket::{DGRAM, ESTABLISHED, INET, INET6, RAW, STREAM, UDP, local_port},
    },
};

/// asm-generic/socket.h.
const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;
const SO_BROADCAST: i32 = 6;
const SO_OOBINLINE: i32 = 10;
const SO_REUSEPORT: i32 = 15;
/// linux/in.h, and linux/in6.h.
const IPPROTO_IP: i32 = 0;
const IPPROTO_IPV6: i32 = 41;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_UNBLOCK_SOURCE: i32 = 37;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_ADD_SOURCE_MEMBERSHIP: i32 = 39;
const IP_DROP_SOURCE_MEMBERSHIP: i32 = 40;
const IP_MSFILTER: i32 = 41;
const IPV6_ADD_MEMBERSHIP: i32 = 20;
const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_UNBLOCK_SOURCE: i32 = 44;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
const MCAST_MSFILTER: i32 = 48;

/// The offsets of the address in structs with a group as a `sockaddr_storage` (such as `group_req`): the storage is at
/// offset 8, with `sin_addr` at 4 and `sin6_addr` at 8 within it.
const SIN_ADDR: usize = 12;
const SIN6_ADDR: usize = 16;

/// The longest value, in bytes, that the kernel always passes completely: a page, or more (`sockopt_alloc_buf` in
/// kernel/bpf/cgroup.c).
const WHOLE: i32 = 4096;

/// Judges the setting of an option.
#[inline(always)]
pub(crate) fn judge_option(ctx: &SockoptContext) -> i32 {
    // SAFETY: the kernel passes a valid `bpf_sockopt`; the verifier checks each access.
    let union = unsafe { (*ctx.sockopt).__bindgen_anon_1 };
    // SAFETY: all members of the union are this pointer.
    let socket = unsafe { union.sk };
    if socket.is_null() {
        return REJECT;
    }
    // SAFETY: as above.
    let level = unsafe { (*ctx.sockopt).level };
    // SAFETY: as above.
    let name = unsafe { (*ctx.sockopt).optname };
    // SAFETY: as above.
    let length = unsafe { (*ctx.sockopt).optlen };
    note_option(socket, level, name);
    let denied = match (level, name) {
        (SOL_SOCKET, SO_BROADCAST) => judge_broadcast(ctx, socket),
        (SOL_SOCKET, SO_OOBINLINE) if !is_taken_off(ctx) => {
            owner::mark_guest(socket);
            None
        }
        _ => group_offset(level, name).and_then(|at| judge_group(ctx, socket, at, length)),
    };
    if let Some(Denied {
        address,
        port,
        protocol,
        rule,
        is_monitored,
    }) = denied
    {
        let what = Refusal {
            address,
            port,
            protocol,
            hook: Hook::Setsockopt as u32,
            rule,
            source: Halves::NONE,
            source_port: 0,
        };
        return refuse(&what, &Author::current_if_known(), is_monitored);
    }
    // Read again: a value that was already set for the kernel remains.
    // SAFETY: as above.
    if unsafe { (*ctx.sockopt).optlen } > WHOLE {
        // The kernel did not pass the complete value. Before Linux 6.5 it fails the call, unless the program reports by
        // 0 that it changed nothing (`__cgroup_bpf_run_filter_setsockopt`).
        // SAFETY: as above.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    PROCEED
}

/// Notes that an option is set. Once a connection is established, its options do not matter.
#[inline(always)]
fn note_option(socket: *mut bpf_sock, level: i32, name: i32) {
    // SAFETY: the hook's own socket, which is a full socket.
    let family = unsafe { (*socket).family };
    // SAFETY: as above.
    let state = unsafe { (*socket).state };
    // SAFETY: as above.
    let kind = unsafe { (*socket).type_ };
    let is_stream = kind == STREAM && state != ESTABLISHED;
    if family != INET && family != INET6 {
        return;
    }
    let reuse = match (level, name) {
        (SOL_SOCKET, SO_REUSEADDR) => REUSE_ADDR,
        (SOL_SOCKET, SO_REUSEPORT) => REUSE_PORT,
        _ => 0,
    };
    if is_stream || reuse != 0 {
        owner::mark_options(socket, TOUCHED | reuse);
    }
}

/// A denied option.
struct Denied {
    address: Halves,
    /// The port of the group, or the type of the socket.
    port: u32,
    protocol: u32,
    rule: u32,
    /// Whether the policy is only monitored.
    is_monitored: bool,
}

/// Whether a numeric option is set to zero. If the value is too long, the kernel reads the number again after this
/// program, and another thread may have changed it; such an option counts as set.
#[inline(always)]
fn is_taken_off(ctx: &SockoptContext) -> bool {
    // SAFETY: the hook's own context; the verifier checks each access.
    let length = unsafe { (*ctx.sockopt).optlen };
    length <= WHOLE && word(ctx, 0) == Some(0)
}

/// Refuses SO_BROADCAST to all sockets except UDP sockets. The kernel gives the host a copy of an IPv4 broadcast before
/// the egress hook runs, so broadcasts have to be stopped earlier. UDP is stopped when the destination of the call is
/// judged, and other sockets cannot broadcast without this option.
///
/// If the policy allows no broadcast, a UDP socket does not get the option either. An address can become a broadcast
/// address before qfence can publish that. Without the option, the kernel itself fails datagrams to it with EACCES. The
/// call succeeds nevertheless, because some programs set the option and never broadcast.
#[inline(always)]
fn judge_broadcast(ctx: &SockoptContext, socket: *mut bpf_sock) -> Option<Denied> {
    // SAFETY: the hook's own socket, which is a full socket.
    let family = unsafe { (*socket).family };
    // SAFETY: as above.
    let kind = unsafe { (*socket).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*socket).protocol };
    let of_the_internet = family == INET || family == INET6;
    if !of_the_internet || is_taken_off(ctx) {
        return None;
    }
    // Stream sockets cannot broadcast.
    let is_datagram = kind == RAW || kind == DGRAM;
    if !is_datagram {
        return None;
    }
    if kind == DGRAM && protocol == UDP {
        if !allows_broadcasts() && owner::netns(socket).is_some_and(is_home) {
            // With -1 the kernel sets nothing and reports success (`__cgroup_bpf_run_filter_setsockopt`).
            // SAFETY: the hook's own context.
            unsafe { (*ctx.sockopt).optlen = -1 };
            return None;
        }
        if note_broadcaster(socket) {
            return None;
        }
    }
    Some(Denied {
        address: Halves::NONE,
        port: kind,
        protocol,
        rule: BROADCAST,
        is_monitored: monitors(),
    })
}

/// Notes that a socket may broadcast. Returns false if that could not be noted.
#[inline(always)]
fn note_broadcaster(socket: *mut bpf_sock) -> bool {
    // SAFETY: the address of a field of an existing value.
    marks::set(|marks| unsafe { &raw mut (*marks).broadcasts }) && owner::mark_broadcaster(socket)
}

/// The offset, in an option's value, of the group that the socket joins or whose sources it selects. The system call
/// filter refuses the same options in calls that do not pass this hook (`launch/child/filter/mod.rs` in `qfence-user`).
#[derive(Clone, Copy)]
struct GroupOffset {
    offset: usize,
    is_v6: bool,
}

#[inline(always)]
fn group_offset(level: i32, name: i32) -> Option<GroupOffset> {
    let is_v6 = match level {
        IPPROTO_IP => false,
        IPPROTO_IPV6 => true,
        _ => return None,
    };
    let offset = match name {
        MCAST_JOIN_GROUP
        | MCAST_BLOCK_SOURCE
        | MCAST_UNBLOCK_SOURCE
        | MCAST_JOIN_SOURCE_GROUP
        | MCAST_LEAVE_SOURCE_GROUP
        | MCAST_MSFILTER => {
            if is_v6 {
                SIN6_ADDR
            } else {
                SIN_ADDR
            }
        }
        IPV6_ADD_MEMBERSHIP if is_v6 => 0,
        IP_ADD_MEMBERSHIP
        | IP_UNBLOCK_SOURCE
        | IP_BLOCK_SOURCE
        | IP_ADD_SOURCE_MEMBERSHIP
        | IP_DROP_SOURCE_MEMBERSHIP
        | IP_MSFILTER
            if !is_v6 =>
        {
            0
        }
        _ => return None,
    };
    Some(GroupOffset { offset, is_v6 })
}

/// Judges the group that a socket joins like a datagram to the group at the socket's own port. For a join, the kernel
/// sends reports (IGMP, MLD). They belong to no socket and pass no other hook.
#[inline(always)]
fn judge_group(
    ctx: &SockoptContext,
    socket: *mut bpf_sock,
    at: GroupOffset,
    length: i32,
) -> Option<Denied> {
    // A value that is too short has no group: the kernel refuses it.
    let group = group(ctx, at)?;
    let port = local_port(socket);
    let verdict = verdict(LookupPath::Address, group, Protocol::UDP, port);
    hit(verdict.rule(), true);
    let rule = match verdict.action() {
        Action::Allow if length <= WHOLE => return None,
        // The kernel would read the value again, and another thread may have changed it by then.
        Action::Allow => UNPARSED,
        Action::Deny => verdict.rule(),
    };
    Some(Denied {
        address: group,
        port: u32::from(port),
        protocol: Protocol::UDP.0,
        rule,
        is_monitored: verdict.has(MONITOR),
    })
}

#[inline(always)]
fn group(ctx: &SockoptContext, at: GroupOffset) -> Option<Halves> {
    let GroupOffset { offset, is_v6 } = at;
    if !is_v6 {
        return Some(Halves::from_v4(word(ctx, offset)?));
    }
    Some(Halves::from_v6([
        word(ctx, offset)?,
        word(ctx, offset + 4)?,
        word(ctx, offset + 8)?,
        word(ctx, offset + 12)?,
    ]))
}

/// Reads a word of an option's value, in network order; `None` beyond the end of the value.
#[inline(always)]
fn word(ctx: &SockoptContext, offset: usize) -> Option<u32> {
    // SAFETY: the hook's own context; the verifier checks each access.
    let value = unsafe { (*ctx.sockopt).__bindgen_anon_2 };
    // SAFETY: all members of the union are this pointer.
    let start = unsafe { value.optval } as usize;
    // SAFETY: as above.
    let end = unsafe { (*ctx.sockopt).__bindgen_anon_3 };
    // SAFETY: as above.
    let end = unsafe { end.optval_end } as usize;
    let at = start + offset;
    if at + size_of::<u32>() > end {
        return None;
    }
    // SAFETY: the bounds were checked above, and nothing changes the kernel's copy.
    Some(u32::from_be(unsafe { (at as *const u32).read_unaligned() }))
}
