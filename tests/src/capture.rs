//! A packet capture: sees the packets on the devices of a namespace, and the packets that are delivered in it, whether
//! or not a socket receives them.

use std::{
    fmt,
    net::IpAddr,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use etherparse::{IpNumber, IpSlice};
use nix::{
    errno::Errno,
    net::if_::if_indextoname,
    sys::socket::{LinkAddr, SockaddrIn, SockaddrLike, recvfrom},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// The size of the receive buffer, in bytes. It must hold all packets between two calls of [`Capture::take`].
const BUFFER: usize = 8 << 20;
/// The namespace counts as quiet after this time without a packet.
const QUIET: Duration = Duration::from_millis(50);

/// The device name of a packet that was seen when it was delivered.
pub const DELIVERED: &str = "(delivered)";

/// The protocols whose deliveries are captured: ICMP, UDP, 253 and UDP-Lite.
const DELIVERIES: [i32; 4] = [1, 17, 253, 136];

/// A capture of all IP packets on all devices of a namespace, except neighbour discovery and group memberships, which
/// the kernel sends on its own.
///
/// A capture on devices does not see the copies of broadcasts and multicasts that a host sends to itself (`packet_rcv`
/// in net/packet/af_packet.c omits PACKET_LOOPBACK). Raw sockets therefore capture deliveries as well, for IPv4 only:
/// IPv6 makes such copies at a lower layer.
#[derive(Debug)]
pub struct Capture {
    namespace: Namespace,
    devices: Socket,
    deliveries: Vec<Socket>,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The device it was seen on.
    pub device: String,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The protocol, after any extension headers.
    pub protocol: u8,
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            source,
            destination,
            protocol,
        } = self;
        write!(
            out,
            "{source} > {destination} protocol {protocol} on {device}"
        )
    }
}

impl Capture {
    /// Starts a capture.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        // In network order, as packet(7) requires.
        let all = i32::from(0x0003_u16.to_be());
        let open = |domain, kind: Type, protocol| {
            let socket = Socket::new(domain, kind.nonblocking(), Some(Protocol::from(protocol)));
            let socket = socket.context("open a socket for packets (this needs root)")?;
            socket
                .set_recv_buffer_size(BUFFER)
                .context("enlarge the buffer")?;
            anyhow::Ok(socket)
        };
        namespace.run(|| {
            let deliveries = DELIVERIES.map(|protocol| open(Domain::IPV4, Type::RAW, protocol));
            Ok(Self {
                namespace: namespace.clone(),
                devices: open(Domain::PACKET, Type::DGRAM, all)?,
                deliveries: deliveries.into_iter().collect::<Result<_>>()?,
            })
        })
    }

    /// Returns the packets since the last call.
    pub fn take(&self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; 70_000];
        while let Some((length, from)) = receive::<LinkAddr>(&self.devices, &mut buffer)? {
            let index = from.context("a packet without a device")?.ifindex();
            let device = || self.device(u32::try_from(index).unwrap_or(0));
            seen.extend(read(&buffer[..length], device));
        }
        for socket in &self.deliveries {
            while let Some((length, _)) = receive::<SockaddrIn>(socket, &mut buffer)? {
                seen.extend(read(&buffer[..length], || DELIVERED.to_owned()));
            }
        }
        Ok(seen)
    }

    /// Waits until no more packets arrive, and discards those that did.
    pub fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            thread::sleep(QUIET);
            let seen = self.take()?;
            if seen.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("it does not become quiet: {}", list(&seen));
            }
        }
    }

    fn device(&self, index: u32) -> String {
        let name = self.namespace.run(|| Ok(if_indextoname(index)?));
        name.map_or_else(
            |_| index.to_string(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}

/// Takes a packet from a socket's queue; `None` if the queue is empty.
fn receive<A: SockaddrLike>(
    socket: &Socket,
    buffer: &mut [u8],
) -> Result<Option<(usize, Option<A>)>> {
    loop {
        match recvfrom(socket.as_raw_fd(), buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(Errno::EAGAIN) => return Ok(None),
            // A device has gone down.
            Err(Errno::ENETDOWN) => {}
            Err(errno) => bail!("receive a packet: {errno}"),
        }
    }
}

/// Parses a packet; `None` if it is not IP, or was sent by the kernel on its own.
fn read(packet: &[u8], device: impl FnOnce() -> String) -> Option<Seen> {
    let ip = IpSlice::from_slice(packet).ok()?;
    let payload = ip.payload();
    if is_housekeeping(payload.ip_number, payload.payload) {
        return None;
    }
    Some(Seen {
        device: device(),
        source: ip.source_addr(),
        destination: ip.destination_addr(),
        protocol: payload.ip_number.0,
    })
}

/// Lists packets in words, for messages.
#[must_use]
pub fn list(seen: &[Seen]) -> String {
    let words: Vec<String> = seen.iter().map(Seen::to_string).collect();
    words.join(", ")
}

/// Whether the kernel sends it on its own: IGMP, multicast listener discovery, router and neighbour discovery (by their
/// ICMPv6 types).
fn is_housekeeping(protocol: IpNumber, payload: &[u8]) -> bool {
    match protocol {
        IpNumber::IGMP => true,
        IpNumber::IPV6_ICMP => matches!(payload.first(), Some(130..=137 | 143)),
        _ => false,
    }
}
