//! Waits for an answer.

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use etherparse::{
    IcmpEchoHeader, Icmpv4Slice, Icmpv4Type, Icmpv6Slice, Icmpv6Type, IpSlice, TcpSlice, UdpSlice,
};
use socket2::Socket;

use super::{
    method::Datagram,
    open::Sockets,
    payload,
    result::{At, Step, Stop},
    spec::Probe,
};

/// Waits for the answer to a packet. Raw sockets also receive unrelated packets, which are skipped.
pub(super) fn wait(
    sockets: &Sockets,
    probe: &Probe,
    datagram: Datagram,
    limit: Duration,
) -> Result<Option<String>, Stop> {
    if datagram == Datagram::Raw253 {
        // No host answers packets of the experimental protocol.
        return Err(Stop::Sent);
    }
    let socket = sockets.receiver.as_ref().unwrap_or(&sockets.socket);
    let deadline = Instant::now() + limit;
    let mut buffer = vec![0; 65_536];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Stop::Sent);
        }
        let Some(bytes) = receive(socket, &mut buffer, left)? else {
            return Err(Stop::Sent);
        };
        if let Some(answer) = read(probe, datagram, bytes) {
            return Ok(Some(answer));
        }
    }
}

/// Receives a packet; `None` if the time limit is reached.
fn receive<'a>(
    mut socket: &Socket,
    buffer: &'a mut [u8],
    left: Duration,
) -> Result<Option<&'a [u8]>, Stop> {
    // The limit is at least 1 ms: zero would mean no limit, and the kernel rounds less than a microsecond to zero.
    let left = left.max(Duration::from_millis(1));
    socket.set_read_timeout(Some(left)).at(Step::Setsockopt)?;
    match socket.read(buffer) {
        Ok(length) => Ok(Some(&buffer[..length])),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).at(Step::Receive),
    }
}

/// The text of an answer; `None` if the packet is not an answer.
fn read(probe: &Probe, datagram: Datagram, bytes: &[u8]) -> Option<String> {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // An IPv4 raw socket receives the IP header as well, an IPv6 raw socket does not.
    let content = if datagram.is_raw() && !probe.is_v6_socket() {
        IpSlice::from_slice(bytes).ok()?.payload().payload
    } else {
        bytes
    };
    let ports = (probe.port, payload::source_port(probe));
    match datagram {
        Datagram::Udp | Datagram::UdpLite => Some(said(bytes)),
        Datagram::Ping => Some("echo reply".to_owned()),
        Datagram::RawIcmp => is_echo_reply(probe, content).then(|| "echo reply".to_owned()),
        Datagram::RawUdp | Datagram::RawHeader => {
            let udp = UdpSlice::from_slice(content).ok()?;
            let for_us = (udp.source_port(), udp.destination_port()) == ports;
            for_us.then(|| said(udp.payload()))
        }
        Datagram::RawTcp => {
            let tcp = TcpSlice::from_slice(content).ok()?;
            let for_us = (tcp.source_port(), tcp.destination_port()) == ports;
            let answer = if tcp.rst() { "RST" } else { "SYN ACK" };
            for_us.then(|| answer.to_owned())
        }
        Datagram::L2tp | Datagram::Raw253 => None,
    }
}

fn is_echo_reply(probe: &Probe, content: &[u8]) -> bool {
    let of_ours = |echo: IcmpEchoHeader| echo.id == payload::identifier();
    if probe.is_v6_socket() {
        let icmp = Icmpv6Slice::from_slice(content).map(|icmp| icmp.icmp_type());
        matches!(icmp, Ok(Icmpv6Type::EchoReply(echo)) if of_ours(echo))
    } else {
        let icmp = Icmpv4Slice::from_slice(content).map(|icmp| icmp.icmp_type());
        matches!(icmp, Ok(Icmpv4Type::EchoReply(echo)) if of_ours(echo))
    }
}
