//! Socket options: judges those by which a socket could reach the host past the other hooks, and notes those that
//! tell what a socket is for.

use aya_ebpf::{bindings::bpf_sock, programs::SockoptContext};
use qfence_common::{
    Action, Halves, Hook, LookupPath, Protocol,
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
        socket::{DGRAM, INET, INET6, RAW, UDP, local_port},
    },
};

/// asm-generic/socket.h.
const SOL_SOCKET: i32 = 1;
const SO_BROADCAST: i32 = 6;
const SO_OOBINLINE: i32 = 10;
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

/// Where the address is in the structs that name a group as a `sockaddr_storage` (`group_req` and its like): that is
/// at 8, `sin_addr` at 4 of it, and `sin6_addr` at 8.
const SIN_ADDR: usize = 12;
const SIN6_ADDR: usize = 16;

/// The longest value of which the kernel hands in all: a page, or more (`sockopt_alloc_buf` in kernel/bpf/cgroup.c).
const WHOLE: i32 = 4096;

/// Judges an option that is set.
#[inline(always)]
pub(crate) fn judge_option(ctx: &SockoptContext) -> i32 {
    // SAFETY: the kernel hands in a valid `bpf_sockopt`; the verifier checks each access.
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
    // Read again: what is done already for the kernel stays so.
    // SAFETY: as above.
    if unsafe { (*ctx.sockopt).optlen } > WHOLE {
        // What the kernel handed in is not all of it. Before Linux 6.5 it fails the call, unless it is told so that
        // nothing was changed (`__cgroup_bpf_run_filter_setsockopt`).
        // SAFETY: as above.
        unsafe { (*ctx.sockopt).optlen = 0 };
    }
    PROCEED
}

/// What is denied of an option.
struct Denied {
    address: Halves,
    /// Of a group; otherwise the socket's type.
    port: u32,
    protocol: u32,
    rule: u32,
    /// Whether the policy that denies it is only monitored.
    is_monitored: bool,
}

/// Whether an option that is a number is set to zero. Of a value that is too long the kernel reads the number again
/// after this, when it may be another: that counts as set.
#[inline(always)]
fn is_taken_off(ctx: &SockoptContext) -> bool {
    // SAFETY: the hook's own context; the verifier checks each access.
    let length = unsafe { (*ctx.sockopt).optlen };
    length <= WHOLE && word(ctx, 0) == Some(0)
}

/// Refuses to let any but a UDP socket broadcast. Of an IPv4 broadcast the kernel hands the host a copy
/// before the egress hook runs, so that has to be stopped before: UDP is, where its destination is
/// judged, and other sockets cannot do it without this option.
///
/// Nor does a UDP socket get it, if the policy lets no broadcast through: an address that turns into a broadcast address
/// is one before anybody could publish that, and without the option the kernel itself fails what is sent there, with
/// EACCES. The call succeeds, for programs set the option that never broadcast.
#[inline(always)]
fn judge_broadcast(ctx: &SockoptContext, socket: *mut bpf_sock) -> Option<Denied> {
    // SAFETY: the hook's own socket, a whole one.
    let family = unsafe { (*socket).family };
    // SAFETY: as above.
    let kind = unsafe { (*socket).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*socket).protocol };
    let of_the_internet = family == INET || family == INET6;
    if !of_the_internet || is_taken_off(ctx) {
        return None;
    }
    // A stream has no broadcasts.
    let is_datagram = kind == RAW || kind == DGRAM;
    if !is_datagram {
        return None;
    }
    if kind == DGRAM && protocol == UDP {
        if !allows_broadcasts() && owner::netns(socket).is_some_and(is_home) {
            // The kernel does nothing, and says that it did (`__cgroup_bpf_run_filter_setsockopt`).
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

/// Notes that a socket may broadcast; whether that could be noted.
#[inline(always)]
fn note_broadcaster(socket: *mut bpf_sock) -> bool {
    // SAFETY: the offset of a field of a value that is there.
    marks::set(|marks| unsafe { &raw mut (*marks).broadcasts }) && owner::mark_broadcaster(socket)
}

/// Where the value of an option has the group that a socket joins by it, or whose sources it chooses. The filter of
/// system calls refuses the same options to calls that do not come by here (`launch/child/filter/mod.rs` in `qfence-user`).
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

/// Judges the group that a socket joins, as a datagram to it at the socket's own port would be: for a join the kernel
/// sends reports (IGMP, MLD), which are no socket's and pass no other hook.
#[inline(always)]
fn judge_group(
    ctx: &SockoptContext,
    socket: *mut bpf_sock,
    at: GroupOffset,
    length: i32,
) -> Option<Denied> {
    // Of one that is too short there is none: the kernel refuses it.
    let group = group(ctx, at)?;
    let port = local_port(socket);
    let verdict = verdict(LookupPath::Address, group, Protocol::UDP, port);
    hit(verdict.rule(), true);
    let rule = match verdict.action() {
        Action::Allow if length <= WHOLE => return None,
        // The kernel would read the value again, when it may be another.
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

/// A word of an option's value, from network order; `None` beyond its end.
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
    // SAFETY: that many bytes are there, as was just asked for, and nothing changes the kernel's copy.
    Some(u32::from_be(unsafe { (at as *const u32).read_unaligned() }))
}
