//! TCP, UDP and ping.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
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

use crate::{
    attempt::{Reached, Unreached},
    compat::{Manner, set_option},
};

/// What is sent in a datagram.
pub(crate) const HELLO: &[u8] = b"hello?\n";

pub(crate) fn tcp(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    let after = start.elapsed();
    stream.set_read_timeout(Some(limit))?;
    let mut reply = Vec::new();
    // The connection stands; how the conversation ends does not change that.
    let _ = stream.by_ref().take(4096).read_to_end(&mut reply);
    let reply = (!reply.is_empty()).then(|| String::from_utf8_lossy(&reply).into_owned());
    Ok(Reached { after, reply })
}

/// A UDP socket, which may send broadcasts if the destination looks like one. It is of the destination's family: a v4-mapped
/// destination is used on an IPv6 socket.
pub(crate) fn udp_socket(destination: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match destination {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.set_broadcast(may_be_broadcast(destination.ip()))?;
    Ok(socket)
}

/// Whether an address can be a broadcast address, as far as it shows.
fn may_be_broadcast(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(v4) if v4.octets()[3] == 255)
}

/// A UDP socket on a port that others may be bound to as well.
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

/// Sends from a port of the caller's choice, and waits for an answer.
pub(crate) fn udp_from(
    port: u16,
    address: SocketAddr,
    limit: Duration,
) -> Result<Reached, Unreached> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    udp_bound(SocketAddr::new(any, port), address, limit)
}

/// Sends from an address of the caller's choice, and waits for an answer.
pub(crate) fn udp_bound(
    local: SocketAddr,
    address: SocketAddr,
    limit: Duration,
) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let socket = shared_udp_socket(local)?;
    socket.send_to(HELLO, address)?;
    answer(&socket, start, limit)
}

pub(crate) fn udp(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let socket = udp_socket(address)?;
    socket.send_to(HELLO, address)?;
    answer(&socket, start, limit)
}

pub(crate) fn udp_connected(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let socket = udp_socket(address)?;
    socket.connect(address)?;
    socket.send(HELLO)?;
    answer(&socket, start, limit)
}

fn answer(socket: &UdpSocket, start: Instant, limit: Duration) -> Result<Reached, Unreached> {
    let reply = receive(socket, limit)?;
    let reply = Some(String::from_utf8_lossy(&reply).into_owned());
    Ok(Reached {
        after: start.elapsed(),
        reply,
    })
}

/// Waits for a datagram.
pub(crate) fn receive(socket: &UdpSocket, limit: Duration) -> Result<Vec<u8>, Unreached> {
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = vec![0; 4096];
    match socket.recv(&mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Unreached::Sent),
        Err(error) => Err(Unreached::Failed(error)),
    }
}

/// Sends a ping; to a broadcast address once that was allowed, by a call in the manner that is given, or natively if
/// it must be.
pub(crate) fn ping(
    address: SocketAddr,
    limit: Duration,
    manner: Option<Manner>,
) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let (family, protocol, echo_request) = match address {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(io::Error::from)?;
    // For sending and receiving, a ping socket is like a UDP socket. The kernel fills in the
    // identifier and the checksum.
    let socket = UdpSocket::from(socket);
    let mut request = vec![echo_request, 0, 0, 0, 0, 0, 0, 1];
    request.extend_from_slice(HELLO);
    if let Some(manner) = manner {
        let on = 1_i32.to_ne_bytes();
        let set = set_option(
            manner,
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BROADCAST,
            &on,
        );
        if manner == Manner::Long {
            // It was set to zero.
            return done(set);
        }
        set?;
    }
    if let Err(error) = socket.send_to(&request, address) {
        // A broadcast, which the socket must be allowed.
        if error.raw_os_error() != Some(Errno::EACCES as i32) {
            return Err(error.into());
        }
        socket.set_broadcast(true)?;
        socket.send_to(&request, address)?;
    }
    receive(&socket, limit)?;
    Ok(Reached {
        after: start.elapsed(),
        reply: None,
    })
}

/// Sets an option of a UDP socket of IPv6, which takes IPv4's as well, to eight zeros.
pub(crate) fn option(manner: Manner, level: i32, name: i32) -> Result<Reached, Unreached> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    done(set_option(manner, socket.as_raw_fd(), level, name, &[0; 8]))
}

/// Asks what is no terminal and no socket.
pub(crate) fn ioctl(request: u32) -> Result<Reached, Unreached> {
    let nothing = std::fs::File::open("/dev/null")?;
    // SAFETY: the device has no requests, and looks at no argument.
    let asked = unsafe { libc::ioctl(nothing.as_raw_fd(), request.into(), 0) };
    done(Errno::result(asked).map_err(io::Error::from))
}

/// A call that reaches nobody, and succeeds or does not.
pub(crate) fn done<T>(result: io::Result<T>) -> Result<Reached, Unreached> {
    let after = Duration::ZERO;
    Ok(result.map(|_| Reached { after, reply: None })?)
}
