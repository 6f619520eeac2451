//! Makes and configures the sockets of a probe; sends nothing.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    time::{Duration, Instant},
};

use nix::{errno::Errno, libc, net::if_::if_nametoindex};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{
    datagram,
    method::{Datagram, Method, Opening, Sending, Stream},
    payload, raw,
    result::{At, ProbeResult, Step, Stop, errno_of, is_for_want_of_privilege},
    setup,
    spec::{Destination, Probe},
    stream,
    uring::Ring,
};

/// The protocol number that is reserved for experiments (RFC 3692).
const EXPERIMENT: i32 = 253;
/// `CAP_NET_RAW` in capability sets.
const CAP_NET_RAW: u64 = 1 << 13;

/// A probe after the attempt to make its sockets.
#[derive(Debug)]
pub struct Opened {
    probe: Probe,
    sockets: Result<Sockets, Stop>,
    took: Duration,
}

/// The resources of a probe.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) socket: Socket,
    /// The socket that receives answers, if it is not `socket`.
    pub(super) receiver: Option<Socket>,
    pub(super) ring: Option<Ring>,
    pub(super) destination: SockAddr,
    pub(super) decoy: Option<SockAddr>,
    /// The control data of each message, for sendmsg().
    pub(super) control: Vec<u8>,
}

impl Probe {
    /// Makes and configures the sockets, in the network namespace and with the privileges of the calling thread. An
    /// error becomes part of the outcome.
    #[must_use]
    pub fn open(&self) -> Opened {
        let start = Instant::now();
        let sockets = open(self).map_err(|stop| match stop {
            Stop::Failed(step, errno)
                if is_for_want_of_privilege(self.method, step, errno, may_make_raw_sockets()) =>
            {
                Stop::Unprivileged(step, errno)
            }
            stop => stop,
        });
        Opened {
            probe: self.clone(),
            sockets,
            took: start.elapsed(),
        }
    }
}

impl Opened {
    /// Makes the probe. No step waits for longer than `limit`. The reported time is that of opening and making.
    ///
    /// If the probe has the option `+pause`, `pause` is called once before the first byte is sent (after connect() with
    /// methods that connect). Its error is reported for the step [`Step::Send`].
    pub fn make(self, limit: Duration, pause: &mut dyn FnMut() -> io::Result<()>) -> ProbeResult {
        let start = Instant::now();
        let result = self.sockets.and_then(|mut sockets| {
            sockets
                .socket
                .set_read_timeout(Some(limit))
                .at(Step::Setsockopt)?;
            sockets
                .socket
                .set_write_timeout(Some(limit))
                .at(Step::Setsockopt)?;
            match self.probe.method {
                Method::Stream(_, opening) => {
                    let pause = self.probe.options.pause.then_some(pause);
                    stream::make(&mut sockets, opening, limit, pause)
                }
                Method::Datagram(datagram, sending) => {
                    let how = (datagram, sending);
                    datagram::make(&mut sockets, &self.probe, how, limit, pause)
                }
            }
        });
        ProbeResult::new(&self.probe, result, self.took + start.elapsed())
    }
}

fn open(probe: &Probe) -> Result<Sockets, Stop> {
    let (kind, protocol) = kind(probe);
    let socket = socket(probe, kind, protocol)?;
    // A socket that sends its own IP header (`IPPROTO_RAW`) receives nothing.
    let receiver = match probe.method {
        Method::Datagram(Datagram::RawHeader, _) => {
            Some(self::socket(probe, Type::RAW, libc::IPPROTO_UDP)?)
        }
        _ => None,
    };
    setup::set(&socket, probe)?;
    let uses_ring = matches!(
        probe.method,
        Method::Stream(_, Opening::Uring)
            | Method::Datagram(_, Sending::Uring | Sending::UringConnected)
    );
    let destination = &probe.destination;
    let decoy = probe.options.decoy.map(|address| Destination {
        address,
        zone: None,
    });
    let sockets = Sockets {
        ring: uses_ring.then(Ring::new).transpose()?,
        destination: address(probe, destination)?,
        decoy: decoy.map(|decoy| address(probe, &decoy)).transpose()?,
        control: setup::control(probe)?,
        socket,
        receiver,
    };
    bind(&sockets.socket, probe)?;
    Ok(sockets)
}

fn socket(probe: &Probe, kind: Type, protocol: i32) -> Result<Socket, Stop> {
    let domain = if probe.is_v6_socket() {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    Socket::new(domain, kind, Some(Protocol::from(protocol))).at(Step::Socket)
}

fn kind(probe: &Probe) -> (Type, i32) {
    let icmp = if probe.is_v6_socket() {
        libc::IPPROTO_ICMPV6
    } else {
        libc::IPPROTO_ICMP
    };
    match probe.method {
        Method::Stream(Stream::Tcp, _) => (Type::STREAM, libc::IPPROTO_TCP),
        Method::Stream(Stream::Mptcp, _) => (Type::STREAM, libc::IPPROTO_MPTCP),
        Method::Stream(Stream::Sctp, _) => (Type::STREAM, libc::IPPROTO_SCTP),
        Method::Stream(Stream::Dccp, _) => (Type::from(raw::SOCK_DCCP), libc::IPPROTO_DCCP),
        Method::Datagram(datagram, _) => match datagram {
            Datagram::Udp => (Type::DGRAM, libc::IPPROTO_UDP),
            Datagram::UdpLite => (Type::DGRAM, libc::IPPROTO_UDPLITE),
            Datagram::L2tp => (Type::DGRAM, raw::IPPROTO_L2TP),
            Datagram::Ping => (Type::DGRAM, icmp),
            Datagram::RawIcmp => (Type::RAW, icmp),
            Datagram::RawUdp => (Type::RAW, libc::IPPROTO_UDP),
            Datagram::RawTcp => (Type::RAW, libc::IPPROTO_TCP),
            Datagram::Raw253 => (Type::RAW, EXPERIMENT),
            Datagram::RawHeader => (Type::RAW, libc::IPPROTO_RAW),
        },
    }
}

fn bind(socket: &Socket, probe: &Probe) -> Result<(), Stop> {
    let options = &probe.options;
    // A checksum is valid for one source address only, so the socket is bound to it.
    let source = match probe.method {
        Method::Datagram(Datagram::RawUdp | Datagram::RawTcp, _) => Some(payload::source(probe)),
        _ => options.source,
    };
    if source.is_none() && options.source_port.is_none() {
        return Ok(());
    }
    let unspecified = if probe.is_v6_socket() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let port = match probe.method {
        method if method.is_raw() => 0,
        _ => options.source_port.unwrap_or(0),
    };
    let zone = zone(probe.destination.zone.as_deref())?;
    let address = with_port(source.unwrap_or(unspecified), port, zone);
    socket.bind(&address.into()).at(Step::Bind)
}

/// The socket address of a destination.
fn address(probe: &Probe, destination: &Destination) -> Result<SockAddr, Stop> {
    // net/ipv6/raw.c takes the port of a raw socket's destination for a protocol number.
    let port = if probe.method.is_raw() { 0 } else { probe.port };
    let zone = zone(destination.zone.as_deref())?;
    match with_port(destination.address, port, zone) {
        SocketAddr::V4(address) if probe.options.unspec => Ok(raw::without_family(address)),
        address => Ok(address.into()),
    }
}

fn with_port(address: IpAddr, port: u16, zone: u32) -> SocketAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, zone).into(),
    }
}

fn zone(device: Option<&str>) -> Result<u32, Stop> {
    device.map_or(Ok(0), index)
}

/// The index of a device.
pub(super) fn index(device: &str) -> Result<u32, Stop> {
    // The lookup is an ioctl() on a separate socket, which is not part of the probe.
    if_nametoindex(device).at(Step::Setsockopt)
}

impl Probe {
    /// Whether its sockets are IPv6 sockets.
    pub(super) fn is_v6_socket(&self) -> bool {
        self.destination.address.is_ipv6() || self.options.on_v6
    }
}

/// Whether this thread has `CAP_NET_RAW`. If that cannot be read, the answer is yes, so that a refusal is never taken
/// for a lack of privilege.
fn may_make_raw_sockets() -> bool {
    let Ok(status) = fs::read_to_string("/proc/thread-self/status") else {
        return true;
    };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.map(|digits| u64::from_str_radix(digits.trim(), 16));
    !matches!(effective, Some(Ok(set)) if set & CAP_NET_RAW == 0)
}

impl Sockets {
    /// connect() to the decoy. The probe has one, because its method needs it.
    pub(super) fn connect_to_decoy(&self) -> Result<(), Stop> {
        let missing = Stop::Failed(Step::Connect, Errno::EDESTADDRREQ);
        let decoy = self.decoy.as_ref().ok_or(missing)?;
        self.connect_to(decoy)
    }

    /// connect() to the destination.
    pub(super) fn connect(&self) -> Result<(), Stop> {
        self.connect_to(&self.destination)
    }

    /// Dissolves the association of connect().
    pub(super) fn disconnect(&self) -> Result<(), Stop> {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        self.connect_to(&raw::without_family(nowhere))
    }

    fn connect_to(&self, address: &SockAddr) -> Result<(), Stop> {
        match self.socket.connect(address) {
            Err(error) if errno_of(&error) == Errno::EINPROGRESS => {
                Err(Stop::Timeout(Step::Connect))
            }
            result => result.at(Step::Connect),
        }
    }

    /// The ring. The probe has one if its method needs it.
    pub(super) fn ring(&mut self) -> Result<&mut Ring, Stop> {
        let missing = Stop::Failed(Step::Ring, Errno::EBADF);
        self.ring.as_mut().ok_or(missing)
    }
}
