//! Reads sockets.

use aya_ebpf::bindings::bpf_sock;
use qfence_common::Halves;

use super::owner;

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
pub(crate) const ICMP: u32 = 1;
pub(crate) const ICMPV6: u32 = 58;

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
