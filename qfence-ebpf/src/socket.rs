//! Sockets: judges those that are made, and reads from those that send.

use aya_ebpf::{bindings::bpf_sock, helpers::bpf_get_netns_cookie, programs::SockContext};
use qfence_common::{
    Halves, Hook,
    verdict::{FOREIGN_NETNS, SOCKET_KIND},
};

use crate::{
    judge::{PROCEED, REJECT},
    maps::ALLOW_RAW,
    netns, owner,
    policy::monitors,
    record::{Author, Refusal, refuse},
};

/// SOCK_DGRAM and SOCK_RAW (linux/net.h).
pub(crate) const DGRAM: u32 = 2;
pub(crate) const RAW: u32 = 3;
/// AF_INET and AF_INET6 (linux/socket.h).
pub(crate) const INET: u32 = 2;
pub(crate) const INET6: u32 = 10;
/// TCP_LISTEN (net/tcp_states.h).
const LISTEN: u32 = 10;
/// IPPROTO_UDP.
pub(crate) const UDP: u32 = 17;
/// IPPROTO_ICMP and IPPROTO_ICMPV6: sockets for pings.
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Refuses raw sockets, and those for datagrams of any other protocol than UDP and pings, unless they
/// are let be, and those in a network namespace that was made outside the fence; and notes who makes a socket.
///
/// UDP-Lite, connected, passes no other hook for calls, and L2TP, which anybody can send over IP, none
/// at all.
#[inline(always)]
pub(crate) fn judge_socket(ctx: &SockContext) -> i32 {
    // SAFETY: the kernel hands in a valid `bpf_sock`; the verifier checks each access.
    let kind = unsafe { (*ctx.sock).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*ctx.sock).protocol };
    // SAFETY: the hook's own context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock.cast()) };
    let author = Author::current(cookie);
    let is_odd = kind == DGRAM && protocol != UDP && protocol != ICMP && protocol != ICMPV6;
    let reason = if !netns::may_be_in(ctx, cookie) {
        Some(FOREIGN_NETNS)
    } else if (kind == RAW || is_odd) && ALLOW_RAW.load() == 0 {
        Some(SOCKET_KIND)
    } else {
        None
    };
    if let Some(rule) = reason {
        let what = Refusal {
            address: Halves::NONE,
            port: kind,
            protocol,
            hook: Hook::SockCreate as u32,
            rule,
            source: Halves::NONE,
            source_port: 0,
        };
        if refuse(&what, &author, monitors()) == REJECT {
            return REJECT;
        }
    }
    owner::note(ctx, &author, reason);
    PROCEED
}

/// Whether a socket is one that connected to something else than the host: not a listener, nor one that
/// came out of a listener, which nobody made by a call. `socket` may be null, or else is a whole one.
#[inline(always)]
pub(crate) fn has_connected_elsewhere(socket: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    !socket.is_null() && unsafe { (*socket).state } != LISTEN && owner::connects_elsewhere(socket)
}

/// Whether a socket is one of a connection that was opened by a call, be it by MPTCP, of which the peer may have opened
/// this way. `socket` may be null, or else is a whole one.
#[inline(always)]
pub(crate) fn is_of_own_connection(socket: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    !socket.is_null() && unsafe { (*socket).state } != LISTEN && owner::of(socket).is_some()
}

/// The port a socket sends from, in host order; 0 for none. `socket` may be null.
#[inline(always)]
pub(crate) fn local_port(socket: *mut bpf_sock) -> u16 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket, not null.
    let port = unsafe { (*socket).src_port };
    // A word, in host order.
    u16::try_from(port).unwrap_or(0)
}

/// The address a socket is bound to; zero for none. `socket` may be null.
#[inline(always)]
pub(crate) fn local_address(socket: *mut bpf_sock) -> Halves {
    if socket.is_null() {
        return Halves::NONE;
    }
    // SAFETY: a socket, not null.
    let family = unsafe { (*socket).family };
    if family == INET {
        // SAFETY: as above.
        let ip = unsafe { (*socket).src_ip4 };
        return Halves::from_v4(u32::from_be(ip));
    }
    if family != INET6 {
        return Halves::NONE;
    }
    // SAFETY: as above. Copied whole: the verifier takes no variable index into a socket.
    let words = unsafe { (*socket).src_ip6 };
    Halves::from_v6(words.map(u32::from_be))
}

/// Whether a whole socket is raw. `socket` may be null.
#[inline(always)]
pub(crate) fn is_raw(socket: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    !socket.is_null() && unsafe { (*socket).type_ == RAW }
}
