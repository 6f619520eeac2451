//! Socket functions that neither the standard library nor the socket crates have. All unsafe code for the sockets of
//! probes is here.

use std::{io, net::SocketAddrV4, os::fd::AsRawFd};

use nix::{errno::Errno, libc};
use socket2::{SockAddr, Socket};

/// The type of DCCP sockets (include/linux/net.h).
pub(super) const SOCK_DCCP: i32 = 6;
/// IPPROTO_L2TP (include/uapi/linux/in.h).
pub(super) const IPPROTO_L2TP: i32 = 115;
/// `IPV6_UNICAST_IF` (include/uapi/linux/in6.h).
pub(super) const IPV6_UNICAST_IF: i32 = 76;

/// setsockopt() with a byte value, for options with a value of variable length or in network order.
///
/// # Errors
/// The errors of setsockopt().
pub(super) fn set_option(socket: &Socket, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a slice, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// An IPv4 socket address with the family `AF_UNSPEC`. connect() with it dissolves an association. sendto() on an IPv4
/// socket treats it like `AF_INET` (`udp_sendmsg` in net/ipv4/udp.c).
pub(super) fn without_family(address: SocketAddrV4) -> SockAddr {
    const AF_UNSPEC: libc::sa_family_t = 0;
    let address = SockAddr::from(address);
    let (length, mut storage) = (address.len(), address.as_storage());
    // SAFETY: the storage contains a sockaddr_in.
    let inet = unsafe { storage.view_as::<libc::sockaddr_in>() };
    inet.sin_family = AF_UNSPEC;
    // SAFETY: the length has not changed.
    unsafe { SockAddr::new(storage, length) }
}
