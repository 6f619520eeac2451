//! Reads the fields of sockets.

use aya_ebpf::bindings::bpf_sock;
use qfence_common::Halves;

use super::owner;

/// SOCK_STREAM, SOCK_DGRAM and SOCK_RAW (linux/net.h).
pub(crate) const STREAM: u32 = 1;
pub(crate) const DGRAM: u32 = 2;
pub(crate) const RAW: u32 = 3;
/// AF_INET and AF_INET6 (linux/socket.h).
pub(crate) const INET: u32 = 2;
pub(crate) const INET6: u32 = 10;
/// TCP_ESTABLISHED, TCP_LISTEN and TCP_NEW_SYN_RECV (net/tcp_states.h).
pub(crate) const ESTABLISHED: u32 = 1;
pub(crate) const LISTEN: u32 = 10;
pub(crate) const NEW_SYN_RECV: u32 = 12;
/// IPPROTO_UDP.
pub(crate) const UDP: u32 = 17;
/// IPPROTO_ICMP and IPPROTO_ICMPV6, for ping sockets.
pub(crate) const ICMP: u32 = 1;
pub(crate) const ICMPV6: u32 = 58;

/// Whether a socket's connection was opened by a call and is not to the host. False for a listener, and for a socket
/// from a listener, because no call created it. `socket` is null or a full socket.
#[inline(always)]
pub(crate) fn has_connected_elsewhere(socket: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, not null.
    !socket.is_null() && unsafe { (*socket).state } != LISTEN && owner::connects_elsewhere(socket)
}

/// Whether a socket belongs to a connection that was opened by a call. This includes subflows of an MPTCP connection,
/// even those that the peer opened. `socket` is null or a full socket.
#[inline(always)]
pub(crate) fn is_of_own_connection(socket: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, not null.
    !socket.is_null() && unsafe { (*socket).state } != LISTEN && owner::of(socket).is_some()
}

/// Returns the flag by which the connection of a socket was let through to a listener of the fence's own; 0 if it was not.
/// `socket` is null or a full socket.
#[inline(always)]
pub(crate) fn let_through(socket: *mut bpf_sock) -> u32 {
    if socket.is_null() {
        return 0;
    }
    owner::let_through(socket).map_or(0, |through| through.flags)
}

/// Returns the local port of a socket, in host order; 0 if there is none. `socket` may be null.
#[inline(always)]
pub(crate) fn local_port(socket: *mut bpf_sock) -> u16 {
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a socket, not null.
    let port = unsafe { (*socket).src_port };
    // `src_port` is a word, in host order.
    u16::try_from(port).unwrap_or(0)
}

/// Returns the address to which a socket is bound; zero if there is none. `socket` may be null.
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
    // SAFETY: as above. All words are copied: the verifier permits no variable index into a socket.
    let words = unsafe { (*socket).src_ip6 };
    Halves::from_v6(words.map(u32::from_be))
}

/// Returns the port to which a full socket is connected; 0 if it is not connected.
#[inline(always)]
pub(crate) fn remote_port(socket: *mut bpf_sock) -> u16 {
    // SAFETY: a full socket, not null.
    u16::from_be(unsafe { (*socket).dst_port })
}

/// Returns the address to which a full socket is connected.
#[inline(always)]
pub(crate) fn remote_address(socket: *mut bpf_sock) -> Halves {
    // SAFETY: a full socket, not null.
    let family = unsafe { (*socket).family };
    if family == INET {
        // SAFETY: as above.
        let ip = unsafe { (*socket).dst_ip4 };
        return Halves::from_v4(u32::from_be(ip));
    }
    if family != INET6 {
        return Halves::NONE;
    }
    // SAFETY: as above. All words are copied: the verifier permits no variable index into a socket.
    let words = unsafe { (*socket).dst_ip6 };
    Halves::from_v6(words.map(u32::from_be))
}

/// Whether a full socket is raw. `socket` may be null.
#[inline(always)]
pub(crate) fn is_raw(socket: *mut bpf_sock) -> bool {
    // SAFETY: a full socket, not null.
    !socket.is_null() && unsafe { (*socket).type_ == RAW }
}
