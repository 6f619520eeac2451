//! What an attempt is, how it is written, and how its ending is reported.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{errno::Errno, net::if_::if_nametoindex};
use tests::probe::{Ending, Outcome};

use crate::{bulk, compat::Manner, connect, dns, keys::Keys};

/// The port of DNS servers.
const DNS: u16 = 53;

/// One way of trying to reach something.
pub(crate) enum Attempt {
    /// Connect, and read what the peer says.
    Tcp(SocketAddr),
    /// Send a datagram from an unconnected socket, and wait for an answer.
    Udp(SocketAddr),
    /// Send a datagram from an unconnected socket on a port, and wait for an answer.
    UdpFrom(u16, SocketAddr),
    UdpBound(SocketAddr, SocketAddr),
    Ioctl(u32),
    /// Send a datagram from a connected socket, and wait for an answer.
    UdpConnected(SocketAddr),
    /// Send an ICMP echo request from an unconnected "ping" socket, and wait for an answer.
    Ping(SocketAddr),
    /// The same to a broadcast address, once that was allowed by a call in that manner.
    PingBy(Manner, SocketAddr),
    /// Set an option of a UDP socket by a call in that manner, by level and name, to zeros.
    Option(Manner, i32, i32),
    /// Make a call for keys in that manner.
    Keys(Manner, Keys),
    /// Ask a DNS server for a name's IPv4 address.
    Dns(SocketAddr, String),
    /// The same by TCP.
    DnsTcp(SocketAddr, String),
    /// Send ten megabytes to an echo, and compare what comes back.
    BulkTcp(SocketAddr),
    /// The same in datagrams.
    BulkUdp(SocketAddr),
}

/// What was reached: when, and what was said.
pub(crate) struct Reached {
    pub(crate) after: Duration,
    pub(crate) reply: Option<String>,
}

/// Why nothing was reached.
pub(crate) enum Unreached {
    /// The datagram was taken, and there was no answer.
    Sent,
    /// A system call failed, or (without an error number) the time was up.
    Failed(io::Error),
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Attempt {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let attempt = match text.split('/').collect::<Vec<_>>()[..] {
            ["tcp", address, port] => Self::Tcp(socket_address(address, port.parse()?)?),
            ["udp", address, port] => Self::Udp(socket_address(address, port.parse()?)?),
            ["udp-connected", address, port] => {
                Self::UdpConnected(socket_address(address, port.parse()?)?)
            }
            ["udp-from", local, address, port] => {
                Self::UdpFrom(local.parse()?, socket_address(address, port.parse()?)?)
            }
            ["udp-bound", local, address, port] => {
                Self::UdpBound(local.parse()?, socket_address(address, port.parse()?)?)
            }
            ["ping", address] => Self::Ping(socket_address(address, 0)?),
            ["ping-by", manner, address] => {
                Self::PingBy(Manner::parse(manner)?, socket_address(address, 0)?)
            }
            ["option", manner, level, name] => {
                Self::Option(Manner::parse(manner)?, level.parse()?, name.parse()?)
            }
            ["ioctl", request] => Self::Ioctl(u32::from_str_radix(request, 16)?),
            ["keys", manner, what] => Self::Keys(Manner::parse(manner)?, Keys::parse(what)?),
            ["dns", server, name] => Self::Dns(socket_address(server, DNS)?, name.to_owned()),
            ["dns-tcp", server, name] => {
                Self::DnsTcp(socket_address(server, DNS)?, name.to_owned())
            }
            ["bulk-tcp", address, port] => Self::BulkTcp(socket_address(address, port.parse()?)?),
            ["bulk-udp", address, port] => Self::BulkUdp(socket_address(address, port.parse()?)?),
            _ => bail!("{text} is no attempt"),
        };
        Ok(attempt)
    }

    /// Makes the attempt. Whatever happens is an outcome.
    pub(crate) fn make(&self, text: &str, limit: Duration) -> Outcome {
        let start = Instant::now();
        let result = self.try_once(limit);
        let elapsed = start.elapsed();
        let (ending, errno, after, reply) = match result {
            Ok(Reached { after, reply }) => (Ending::Reached, None, after, reply),
            Err(Unreached::Sent) => (Ending::Sent, None, elapsed, None),
            Err(Unreached::Failed(error)) if is_our_timeout(&error) => {
                (Ending::Timeout, None, elapsed, None)
            }
            Err(Unreached::Failed(error)) => match error.raw_os_error() {
                Some(errno) => (Ending::Failed, Some(errno), elapsed, None),
                // Nothing that the kernel said: an answer that makes no sense.
                None => (Ending::Failed, None, elapsed, Some(error.to_string())),
            },
        };
        Outcome {
            attempt: text.to_owned(),
            ending,
            errno,
            errno_name: errno.map(errno_name),
            ms: after.as_secs_f64() * 1000.0,
            reply,
        }
    }

    fn try_once(&self, limit: Duration) -> Result<Reached, Unreached> {
        match self {
            Self::Tcp(address) => connect::tcp(*address, limit),
            Self::Udp(address) => connect::udp(*address, limit),
            Self::UdpFrom(port, address) => connect::udp_from(*port, *address, limit),
            Self::Ioctl(request) => connect::ioctl(*request),
            Self::UdpBound(local, address) => connect::udp_bound(*local, *address, limit),
            Self::UdpConnected(address) => connect::udp_connected(*address, limit),
            Self::Ping(address) => connect::ping(*address, limit, None),
            Self::PingBy(manner, address) => connect::ping(*address, limit, Some(*manner)),
            Self::Option(manner, level, name) => connect::option(*manner, *level, *name),
            Self::Keys(manner, keys) => connect::done(keys.ask(*manner)),
            Self::Dns(server, name) => dns::udp(*server, name, limit),
            Self::DnsTcp(server, name) => dns::tcp(*server, name, limit),
            Self::BulkTcp(address) => bulk::tcp(*address, limit),
            Self::BulkUdp(address) => bulk::udp(*address, limit),
        }
    }
}

/// Whether the limit given to a call was up, as opposed to the kernel's own `ETIMEDOUT`.
fn is_our_timeout(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno) == Errno::EAGAIN,
        None => error.kind() == io::ErrorKind::TimedOut,
    }
}

/// The name of an error number, for example `ECONNREFUSED`.
pub(crate) fn errno_name(errno: i32) -> String {
    format!("{:?}", Errno::from_raw(errno))
}

/// Reads an address, with a zone if it has one: `fe80::1%eth0`.
pub(crate) fn socket_address(text: &str, port: u16) -> Result<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        let address: IpAddr = text
            .parse()
            .with_context(|| format!("read address {text}"))?;
        return Ok(SocketAddr::new(address, port));
    };
    let index = match zone.parse() {
        Ok(index) => index,
        Err(_) => if_nametoindex(zone).with_context(|| format!("find interface {zone}"))?,
    };
    let address = address
        .parse()
        .with_context(|| format!("read address {text}"))?;
    Ok(SocketAddrV6::new(address, port, 0, index).into())
}
