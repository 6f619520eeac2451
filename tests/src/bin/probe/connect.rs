//! UDP sockets, and attempts of a single system call.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
        sockopt,
    },
};

pub(crate) use qfence_user::probe::HELLO;
use qfence_user::probe::compat::{Manner, set_option};
use socket2::{Domain, Socket, Type};

use crate::attempt::{Reached, Unreached};

/// A UDP socket of the destination's family: a v4-mapped destination gets an IPv6 socket. It may send broadcasts if the
/// destination looks like a broadcast address.
pub(crate) fn udp_socket(destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match destination {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.set_broadcast(may_be_broadcast(destination.ip()))?;
    Ok(socket)
}

/// Whether an address looks like a broadcast address. The network's prefix length is not known here.
fn may_be_broadcast(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[3] == 255)
}

/// A UDP socket on a port that other sockets can be bound to as well.
pub(crate) fn shared_udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let socket = UdpSocket::from(socket);
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// Waits for a datagram.
pub(crate) fn receive(socket: &UdpSocket, limit: Duration) -> Result<Vec<u8>, Unreached> {
    Ok(receive_from(socket, limit)?.0)
}

/// Waits for a datagram. Returns its source as well.
pub(crate) fn receive_from(
    socket: &UdpSocket,
    limit: Duration,
) -> Result<(Vec<u8>, SocketAddr), Unreached> {
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = vec![0; 4096];
    match socket.recv_from(&mut buffer) {
        Ok((length, source)) => {
            buffer.truncate(length);
            Ok((buffer, source))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Unreached::Sent),
        Err(error) => Err(Unreached::Failed(error)),
    }
}

/// Sets `SO_BROADCAST` by a call in that manner, and sends a ping. After a `long` value, which is zeros, no ping follows.
pub(crate) fn ping(
    address: SocketAddr,
    limit: Duration,
    manner: Manner,
) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let (family, protocol, echo_request) = match address {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(io::Error::from)?;
    // A ping socket sends and receives like a UDP socket. The kernel sets the identifier and the checksum.
    let socket = UdpSocket::from(socket);
    let on = 1_i32.to_ne_bytes();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_BROADCAST);
    let set = set_option(manner, socket.as_raw_fd(), level, name, &on);
    if manner == Manner::Long {
        return done(set);
    }
    set?;
    let request = [&[echo_request, 0, 0, 0, 0, 0, 0, 1], HELLO].concat();
    socket.send_to(&request, address)?;
    receive(&socket, limit)?;
    Ok(Reached {
        after: start.elapsed(),
        reply: None,
    })
}

/// Sets an option of an IPv6 UDP socket to eight zeros. Such a socket has the options of IPv4 as well.
pub(crate) fn option(manner: Manner, level: i32, name: i32) -> Result<Reached, Unreached> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    done(set_option(manner, socket.as_raw_fd(), level, name, &[0; 8]))
}

/// Binds a socket beside one that shares its port: of TCP by SO_REUSEPORT, of UDP by SO_REUSEADDR. An error of the option is
/// left to bind().
pub(crate) fn beside(manner: Manner, kind: Type, at: SocketAddr) -> Result<Reached, Unreached> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    let option = if kind == Type::STREAM {
        libc::SO_REUSEPORT
    } else {
        libc::SO_REUSEADDR
    };
    let on = 1_i32.to_ne_bytes();
    let _ = set_option(manner, socket.as_raw_fd(), libc::SOL_SOCKET, option, &on);
    socket.bind(&at.into())?;
    if kind == Type::STREAM {
        socket.listen(16)?;
    }
    done(Ok(()))
}

/// Makes an ioctl() request on a file that is neither a terminal nor a socket.
pub(crate) fn ioctl(request: u32) -> Result<Reached, Unreached> {
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: /dev/null has no ioctl requests, so the kernel does not use the argument.
    let asked = unsafe { libc::ioctl(nothing.as_raw_fd(), request.into(), 0) };
    done(Errno::result(asked).map_err(io::Error::from))
}

/// The result of a call that has no destination: success counts as reached.
pub(crate) fn done<T>(result: io::Result<T>) -> Result<Reached, Unreached> {
    let after = Duration::ZERO;
    Ok(result.map(|_| Reached { after, reply: None })?)
}
