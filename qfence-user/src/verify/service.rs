//! Services in the fence that answer the host, like those of a guest behind `hostfwd`; the hidden verb `service` runs
//! them. Also the requests that the host makes to them.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
    },
};
use serde::{Deserialize, Serialize};

use super::judge::{End, Trial};

/// The number of services of a manner whose services answer only one request reliably: a connected socket is connected
/// to one host, and a socket that shares its port with another may miss the next request.
const OF_A_KIND: usize = 4;

/// The time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The bytes that are sent in each direction of a connection: more than fit into one packet.
const BULK: usize = 100_000;

/// The protocol of a service, and the socket from which it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manner {
    /// TCP.
    Connection,
    /// A datagram, answered on the socket that received it.
    Unconnected,
    /// A datagram, answered on the socket that received it after this was connected to the sender.
    Connected,
    /// A datagram, answered on another socket with the same port.
    New,
}

impl Manner {
    /// All manners.
    pub const ALL: [Self; 4] = [
        Self::Connection,
        Self::Unconnected,
        Self::Connected,
        Self::New,
    ];

    /// The name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "hostfwd tcp",
            Self::Unconnected => "hostfwd udp, unconnected",
            Self::Connected => "hostfwd udp, connected",
            Self::New => "hostfwd udp, new socket",
        }
    }
}

/// A service, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// How it answers.
    pub manner: Manner,
    /// Its port.
    pub port: u16,
}

/// Starts all services, on all addresses. They end with the process.
///
/// # Errors
/// If a socket or thread cannot be made.
pub fn start() -> Result<Vec<Service>> {
    let mut services = Vec::new();
    for manner in Manner::ALL {
        let count = match manner {
            Manner::Connection | Manner::Unconnected => 1,
            Manner::Connected | Manner::New => OF_A_KIND,
        };
        for _ in 0..count {
            let port = start_one(manner)
                .with_context(|| format!("cannot start the service {}", manner.name()))?;
            services.push(Service { manner, port });
        }
    }
    Ok(services)
}

fn start_one(manner: Manner) -> io::Result<u16> {
    let (port, job): (u16, Box<dyn FnOnce() + Send>) = if manner == Manner::Connection {
        let listener = TcpListener::bind(everywhere(0)?)?;
        let port = listener.local_addr()?.port();
        (port, Box::new(move || echo(&listener)))
    } else {
        let socket = shared_socket(0)?;
        let port = socket.local_addr()?.port();
        (port, Box::new(move || answer(&socket, manner)))
    };
    thread::Builder::new().spawn(job)?;
    Ok(port)
}

/// The unspecified address: of IPv6, which includes IPv4, if the kernel supports it, and otherwise of IPv4.
fn everywhere(port: u16) -> io::Result<SocketAddr> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
            Ok((Ipv4Addr::UNSPECIFIED, port).into())
        }
        Err(error) => Err(error),
    }
}

/// A UDP socket whose port other sockets of this user can share.
fn shared_socket(port: u16) -> io::Result<UdpSocket> {
    let address = everywhere(port)?;
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let made = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&made, sockopt::ReuseAddr, &true)?;
    bind(made.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(made.into())
}

fn echo(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let mut from = &stream;
        // An error means that the peer has closed the connection.
        let _ = io::copy(&mut from, &mut &stream);
    }
}

fn answer(socket: &UdpSocket, manner: Manner) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let text = &buffer[..length];
        // After a failure the peer gets no answer, which it reports.
        let _ = match manner {
            Manner::Connected => socket.connect(peer).and_then(|()| socket.send(text)),
            Manner::New => socket
                .local_addr()
                .and_then(|own| shared_socket(own.port()))
                .and_then(|other| other.send_to(text, peer)),
            Manner::Unconnected | Manner::Connection => socket.send_to(text, peer),
        };
    }
}

/// Talks to a service from the network namespace of this thread.
#[must_use]
pub fn talk(service: Service, host: IpAddr) -> Trial {
    let start = Instant::now();
    let to = SocketAddr::new(host, service.port);
    let talked = match service.manner {
        Manner::Connection => connect(to),
        _ => send(to),
    };
    let errno = talked.as_ref().err().map(|error| {
        error.raw_os_error().map_or_else(
            || error.kind().to_string(),
            |number| format!("{:?}", Errno::from_raw(number)),
        )
    });
    Trial {
        end: if errno.is_none() {
            End::Reached
        } else {
            End::Nothing
        },
        errno,
        ms: start.elapsed().as_secs_f64() * 1000.0,
        layers: Vec::new(),
    }
}

fn connect(to: SocketAddr) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent = vec![0x51; BULK];
    let mut received = vec![0; BULK];
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&sent));
        let read = (&stream).read_exact(&mut received);
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        read.and(written)
    })?;
    same(&sent, &received)
}

fn send(to: SocketAddr) -> io::Result<()> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let sent = b"hello?";
    socket.send_to(sent, to)?;
    let mut received = [0; 64];
    let (length, _) = socket.recv_from(&mut received)?;
    same(sent, &received[..length])
}

fn same(sent: &[u8], received: &[u8]) -> io::Result<()> {
    if sent == received {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_answers_by_both_families() {
        let services = start().unwrap();
        assert_eq!(services.len(), 2 + 2 * OF_A_KIND);
        let mut hosts = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            hosts.push(Ipv6Addr::LOCALHOST.into());
        }
        for manner in Manner::ALL {
            let mut of_manner = services.iter().filter(|service| service.manner == manner);
            let mut service = *of_manner.next().unwrap();
            for host in &hosts {
                let trial = talk(service, *host);
                assert_eq!(trial.end, End::Reached, "{manner:?} {host}: {trial:?}");
                service = of_manner.next().copied().unwrap_or(service);
            }
        }
    }

    #[test]
    fn no_answer_is_no_success() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = silent.local_addr().unwrap().port();
        for manner in Manner::ALL {
            let trial = talk(Service { manner, port }, Ipv4Addr::LOCALHOST.into());
            assert_eq!(trial.end, End::Nothing, "{trial:?}");
            assert!(trial.errno.is_some(), "{trial:?}");
        }
    }
}
