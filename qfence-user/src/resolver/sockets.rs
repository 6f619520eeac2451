//! The sockets on which a resolver listens: UDP and TCP on an IPv4 address of its own, and on `::1`, all on one port.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    ops::RangeInclusive,
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::random;

/// How often another address and port are tried if one is in use.
const ATTEMPTS: usize = 64;

/// The number of connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Where a resolver listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its IPv4 address, in 127.83.0.0/16.
    pub v4: Ipv4Addr,
    /// Its port, for UDP and TCP.
    pub port: u16,
    /// Whether it listens on `::1` as well. It does not if the host has no IPv6.
    pub has_v6: bool,
}

/// UDP and TCP on one address.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

/// The sockets, bound and listening. No other process can bind the same addresses and port.
#[derive(Debug)]
pub struct Sockets {
    endpoint: Endpoint,
    pub(super) pairs: Vec<Pair>,
}

impl Sockets {
    /// Binds them to a random address and port that are not in use. The port is outside of the range from which the kernel
    /// chooses ports of clients.
    ///
    /// # Errors
    /// If no sockets can be made, or if all that were tried are in use.
    pub fn bind() -> io::Result<Self> {
        let clients = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let clients = clients.ok().and_then(|text| range(&text));
        let mut in_use = io::Error::from(ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::bind_to(address(random::number()), port(random::number(), &clients)) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => in_use = error,
                result => return result,
            }
        }
        Err(in_use)
    }

    pub(super) fn bind_to(v4: Ipv4Addr, port: u16) -> io::Result<Self> {
        let mut pairs = vec![Pair::bind(v4.into(), port)?];
        match Pair::bind(Ipv6Addr::LOCALHOST.into(), port) {
            Ok(pair) => pairs.push(pair),
            Err(error) if is_without_v6(&error) => {}
            Err(error) => return Err(error),
        }
        let endpoint = Endpoint {
            v4,
            port,
            has_v6: pairs.len() > 1,
        };
        Ok(Self { endpoint, pairs })
    }

    /// Where they are bound.
    #[must_use]
    pub const fn endpoint(&self) -> Endpoint {
        self.endpoint
    }
}

impl Pair {
    /// `SO_REUSEADDR`, which the standard library and tokio set, is not set, and neither is `SO_REUSEPORT`: with them, others
    /// could bind the same port.
    fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let address = SocketAddr::new(address, port);
        let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
        let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
        tcp.listen(BACKLOG)?;
        Ok(Self {
            udp: udp.into(),
            tcp: tcp.into(),
        })
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_without_v6(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// An address of 127.83.0.0/16, except for the first and the last.
fn address(random: u64) -> Ipv4Addr {
    let [high, low, ..] = (1 + random % 0xfffe).to_le_bytes();
    Ipv4Addr::new(127, 83, low, high)
}

/// A port above 1023 and outside of a range, if there is one.
fn port(random: u64, clients: &Option<RangeInclusive<u16>>) -> u16 {
    let is_free = |port: &u16| !clients.as_ref().is_some_and(|range| range.contains(port));
    let mut ports: Vec<u16> = (1024..=u16::MAX).filter(is_free).collect();
    if ports.is_empty() {
        ports = (1024..=u16::MAX).collect();
    }
    let at = usize::try_from(random % ports.len() as u64).unwrap_or_default();
    ports.get(at).copied().unwrap_or(u16::MAX)
}

/// The two numbers of `ip_local_port_range`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports_are_in_their_ranges() {
        assert_eq!(address(0), Ipv4Addr::new(127, 83, 0, 1));
        assert_eq!(address(0xfffd), Ipv4Addr::new(127, 83, 255, 254));
        assert_eq!(address(0xfffe), Ipv4Addr::new(127, 83, 0, 1));
        let clients = range("32768\t60999\n");
        assert_eq!(clients, Some(32768..=60999));
        for random in (0..70_000).step_by(997) {
            let port = port(random, &clients);
            assert!(port >= 1024 && !(32768..=60999).contains(&port));
        }
        assert!(port(7, &Some(1024..=65535)) >= 1024, "no room beside it");
        assert_eq!(range("no numbers"), None);
    }

    #[test]
    fn no_other_socket_gets_the_same_port() {
        let sockets = Sockets::bind().unwrap();
        let Endpoint { v4, port, .. } = sockets.endpoint();
        assert!(v4.octets().starts_with(&[127, 83]));
        let taken = Sockets::bind_to(v4, port).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        for any in [Ipv4Addr::UNSPECIFIED, v4] {
            let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            other.set_reuse_address(true).unwrap();
            other.set_reuse_port(true).unwrap();
            let bound = other.bind(&SocketAddr::from((any, port)).into());
            assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        drop(sockets);
        // The control: it was theirs alone.
        Sockets::bind_to(v4, port).unwrap();
    }
}
