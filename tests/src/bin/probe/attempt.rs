//! An attempt, reported by one line of output: a probe, an exchange with a server, or a system call.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{errno::Errno, net::if_::if_nametoindex};
use qfence_user::probe::{Probe, compat::Manner};
use socket2::Type;
use tests::probe::{Ending, ProbeResult};

use crate::{bulk, connect, dns, keys::Keys, pair::Pair};

/// The port of DNS servers.
const DNS: u16 = 53;

/// An attempt.
pub(crate) enum Attempt {
    /// A probe like those of `qfence-verify probe`.
    Probe(Probe),
    /// Ask a DNS server for a name's IPv4 address.
    Dns(SocketAddr, String),
    /// Ask it over TCP.
    DnsTcp(SocketAddr, String),
    /// Send ten megabytes to an echo server over TCP, and compare the answer.
    BulkTcp(SocketAddr),
    /// Send them in UDP datagrams.
    BulkUdp(SocketAddr),
    /// Make a socket pair over TCP, and use it.
    Pair(Pair),
    /// Set `SO_BROADCAST` by a call in that manner, then send a ping to a broadcast address.
    PingBy(Manner, SocketAddr),
    /// Set an option of a UDP socket, given by level and name, to zeros by a call in that manner.
    Option(Manner, i32, i32),
    /// Let a socket share its port by an option that is set in that manner, and bind it beside one that does. A TCP socket
    /// also listens.
    Beside(Manner, Type, SocketAddr),
    /// Make a system call for keys in that manner.
    Keys(Manner, Keys),
    /// Make an ioctl() request on /dev/null.
    Ioctl(u32),
}

/// The destination was reached: after this time, and with this reply.
pub(crate) struct Reached {
    pub(crate) after: Duration,
    pub(crate) reply: Option<String>,
}

/// The reason why nothing was reached.
pub(crate) enum Unreached {
    /// The kernel accepted the datagram, and there was no answer.
    Sent,
    /// A system call failed, or (without an error number) the time ran out.
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
            ["dns", server, name] => Self::Dns(socket_address(server, DNS)?, name.to_owned()),
            ["dns-tcp", server, name] => {
                Self::DnsTcp(socket_address(server, DNS)?, name.to_owned())
            }
            ["bulk-tcp", address, port] => Self::BulkTcp(socket_address(address, port.parse()?)?),
            ["bulk-udp", address, port] => Self::BulkUdp(socket_address(address, port.parse()?)?),
            ["pair", listen, connect, manner] => Self::Pair(Pair::parse(listen, connect, manner)?),
            ["ping-by", manner, address] => {
                Self::PingBy(manner.parse()?, socket_address(address, 0)?)
            }
            ["option", manner, level, name] => {
                Self::Option(manner.parse()?, level.parse()?, name.parse()?)
            }
            ["beside", manner, kind, address, port] => {
                let kind = match kind {
                    "tcp" => Type::STREAM,
                    _ => Type::DGRAM,
                };
                Self::Beside(
                    manner.parse()?,
                    kind,
                    socket_address(address, port.parse()?)?,
                )
            }
            ["keys", manner, what] => Self::Keys(manner.parse()?, Keys::parse(what)?),
            ["ioctl", request] => Self::Ioctl(u32::from_str_radix(request, 16)?),
            _ => Self::Probe(text.parse()?),
        };
        Ok(attempt)
    }

    /// Makes the attempt. Every outcome is a result, not an error.
    pub(crate) fn make(&self, text: &str, limit: Duration) -> ProbeResult {
        let start = Instant::now();
        let result = match self {
            Self::Probe(probe) => return probe.open().make(limit, &mut || Ok(())),
            Self::Dns(server, name) => dns::udp(*server, name, limit),
            Self::DnsTcp(server, name) => dns::tcp(*server, name, limit),
            Self::BulkTcp(address) => bulk::tcp(*address, limit),
            Self::BulkUdp(address) => bulk::udp(*address, limit),
            Self::Pair(pair) => pair.make(limit),
            Self::PingBy(manner, address) => connect::ping(*address, limit, *manner),
            Self::Option(manner, level, name) => connect::option(*manner, *level, *name),
            Self::Beside(manner, kind, at) => connect::beside(*manner, *kind, *at),
            Self::Keys(manner, keys) => connect::done(keys.ask(*manner)),
            Self::Ioctl(request) => connect::ioctl(*request),
        };
        let elapsed = start.elapsed();
        let (ending, errno, after, reply) = match result {
            Ok(Reached { after, reply }) => (Ending::Reached, None, after, reply),
            Err(Unreached::Sent) => (Ending::Sent, None, elapsed, None),
            Err(Unreached::Failed(error)) if is_our_timeout(&error) => {
                (Ending::Timeout, None, elapsed, None)
            }
            Err(Unreached::Failed(error)) => match error.raw_os_error() {
                Some(errno) => (Ending::Failed, Some(errno_name(errno)), elapsed, None),
                // Without an error number: an invalid answer.
                None => (Ending::Failed, None, elapsed, Some(error.to_string())),
            },
        };
        ProbeResult {
            probe: text.to_owned(),
            ending,
            step: None,
            errno,
            reply,
            ms: after.as_secs_f64() * 1000.0,
        }
    }
}

/// Whether the time limit of the call ran out, as opposed to the kernel's own `ETIMEDOUT`.
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

/// Parses an address, with an optional zone: `fe80::1%eth0`.
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
