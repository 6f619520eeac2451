//! Sockets: judges those that are made, and reads from those that send.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::bpf_get_netns_cookie,
    programs::{SockContext, SockoptContext},
};
use qfence_common::{
    Halves, Hook,
    verdict::{BROADCAST, SOCKET_KIND},
};

use crate::{
    judge::{PROCEED, REJECT},
    maps::ALLOW_RAW,
    owner,
    policy::monitors,
    record::{Author, Refusal, refuse},
};

/// SOCK_DGRAM and SOCK_RAW (linux/net.h).
const DGRAM: u32 = 2;
const RAW: u32 = 3;
/// AF_INET and AF_INET6 (linux/socket.h).
const INET: u32 = 2;
const INET6: u32 = 10;
/// asm-generic/socket.h.
const SOL_SOCKET: i32 = 1;
const SO_BROADCAST: i32 = 6;
/// TCP_LISTEN (net/tcp_states.h).
const LISTEN: u32 = 10;
/// IPPROTO_UDP.
const UDP: u32 = 17;
/// IPPROTO_ICMP and IPPROTO_ICMPV6: sockets for pings.
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Refuses raw sockets, and those for datagrams of any other protocol than UDP and pings, unless they
/// are let be, and notes who makes a socket.
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
    let author = Author::current(unsafe { bpf_get_netns_cookie(ctx.sock.cast()) });
    let is_odd = kind == DGRAM && protocol != UDP && protocol != ICMP && protocol != ICMPV6;
    if (kind == RAW || is_odd) && ALLOW_RAW.load() == 0 {
        let what = Refusal {
            address: Halves::NONE,
            port: kind,
            protocol,
            hook: Hook::SockCreate as u32,
            rule: SOCKET_KIND,
            source: Halves::NONE,
            source_port: 0,
        };
        if refuse(&what, &author, monitors()) == REJECT {
            return REJECT;
        }
    }
    owner::note(ctx, &author);
    PROCEED
}

/// Refuses to let any but a UDP socket broadcast. Of an IPv4 broadcast the kernel hands the host a copy
/// before the egress hook runs, so that has to be stopped before: UDP is, where its destination is
/// judged, and other sockets cannot do it without this option.
#[inline(always)]
pub(crate) fn judge_option(ctx: &SockoptContext) -> i32 {
    // SAFETY: the kernel hands in a valid `bpf_sockopt`; the verifier checks each access.
    let level = unsafe { (*ctx.sockopt).level };
    // SAFETY: as above.
    let name = unsafe { (*ctx.sockopt).optname };
    if level != SOL_SOCKET || name != SO_BROADCAST {
        return PROCEED;
    }
    // SAFETY: as above.
    let union = unsafe { (*ctx.sockopt).__bindgen_anon_1 };
    // SAFETY: all members of the union are this pointer.
    let socket = unsafe { union.sk };
    if socket.is_null() {
        return REJECT;
    }
    // SAFETY: the hook's own socket, a whole one.
    let family = unsafe { (*socket).family };
    // SAFETY: as above.
    let kind = unsafe { (*socket).type_ };
    // SAFETY: as above.
    let protocol = unsafe { (*socket).protocol };
    let of_the_internet = family == INET || family == INET6;
    let may_broadcast = kind != RAW && (kind != DGRAM || protocol == UDP);
    if !of_the_internet || may_broadcast {
        return PROCEED;
    }
    let what = Refusal {
        address: Halves::NONE,
        port: kind,
        protocol,
        hook: Hook::Setsockopt as u32,
        rule: BROADCAST,
        source: Halves::NONE,
        source_port: 0,
    };
    refuse(&what, &Author::current_if_known(), monitors())
}

/// Whether a socket is one that connected to something else than the host: not a listener, nor one that
/// came out of a listener, which nobody made by a call. `socket` may be null, or else is a whole one.
#[inline(always)]
pub(crate) fn has_connected_elsewhere(socket: *mut bpf_sock) -> bool {
    // SAFETY: a whole socket, not null.
    !socket.is_null() && unsafe { (*socket).state } != LISTEN && owner::connects_elsewhere(socket)
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
