//! A packet capture: sees what goes through the devices of a namespace, and what is delivered there,
//! whoever listens to it.

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

/// Room for what comes between two looks, in bytes.
const BUFFER: usize = 8 << 20;
/// How long nothing may have come for things to count as quiet.
const QUIET: Duration = Duration::from_millis(50);

/// What a packet's device is said to be if it was seen as it was delivered.
pub const DELIVERED: &str = "(delivered)";

/// Protocols of which deliveries are watched: ICMP, UDP, 253 and UDP-Lite.
const DELIVERIES: [i32; 4] = [1, 17, 253, 136];

/// A capture of all IP packets on all devices of a namespace, neighbour discovery and group
/// memberships left out: the kernel sends those by itself.
///
/// A capture on devices does not see the copies of broadcasts and multicasts that a host sends to
/// itself (`packet_rcv` in net/packet/af_packet.c leaves PACKET_LOOPBACK out), so that raw sockets
/// watch what is delivered as well. Those of IPv4: in IPv6 such copies are made further down.
#[derive(Debug)]
pub struct Capture {
    namespace: Namespace,
    devices: Socket,
    deliveries: Vec<Socket>,
}

/// A packet that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The device it was seen on.
    pub device: String,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The protocol in its IP header, extension headers left out.
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
    /// Begins.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        // In network order, as packet(7) has it.
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

    /// What has been seen since the last look.
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

    /// Waits until nothing comes any more, and forgets what came.
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

/// Takes a packet off a socket's queue; `None` if there is none.
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

/// Reads a packet; `None` if it is not IP, or what the kernel sends by itself.
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

/// Packets in words, for messages.
#[must_use]
pub fn list(seen: &[Seen]) -> String {
    let words: Vec<String> = seen.iter().map(Seen::to_string).collect();
    words.join(", ")
}

/// Whether it is what the kernel sends by itself: IGMP, multicast listener discovery, router and
/// neighbour discovery (their ICMPv6 types).
fn is_housekeeping(protocol: IpNumber, payload: &[u8]) -> bool {
    match protocol {
        IpNumber::IGMP => true,
        IpNumber::IPV6_ICMP => matches!(payload.first(), Some(130..=137 | 143)),
        _ => false,
    }
}
