//! The methods of probes, and their names: a protocol, and the manner in which its socket is used, as in
//! `udp-sendmmsg`.

use std::{fmt, str::FromStr};

use super::spec::SpecError;

/// A type of socket, and the manner in which it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A connection.
    Stream(Stream, Opening),
    /// One or more packets.
    Datagram(Datagram, Sending),
}

/// A connection-oriented protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// TCP.
    Tcp,
    /// Multipath TCP.
    Mptcp,
    /// SCTP, with one connection per socket.
    Sctp,
    /// DCCP. Linux removed it in 6.15.
    Dccp,
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// connect().
    Connect,
    /// sendto() with `MSG_FASTOPEN`: the first packet carries the first bytes.
    FastOpen,
    /// `TCP_FASTOPEN_CONNECT`: connect() is delayed until the first bytes are sent.
    FastOpenConnect,
    /// connect() to the decoy, dissolved by connect(`AF_UNSPEC`), then connect() to the destination.
    Reconnected,
    /// The connect operation of io_uring.
    Uring,
}

/// A packet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datagram {
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// L2TP over IPv4, which needs no privilege.
    L2tp,
    /// An ICMP echo request from a "ping" socket, which needs no privilege.
    Ping,
    /// An ICMP echo request from a raw socket.
    RawIcmp,
    /// A UDP datagram built by the probe, from a raw socket.
    RawUdp,
    /// A TCP SYN built by the probe, from a raw socket.
    RawTcp,
    /// A packet of protocol 253, which is reserved for experiments (RFC 3692).
    Raw253,
    /// A UDP datagram with its IP header, both built by the probe.
    RawHeader,
}

/// How a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sending {
    /// sendmsg() with the destination.
    SendTo,
    /// connect(), then sendmsg() without a destination.
    Connected,
    /// sendmmsg(): three datagrams in one call.
    Sendmmsg,
    /// `UDP_SEGMENT`: three datagrams in one buffer.
    Gso,
    /// `UDP_CORK`: the datagram is sent when the option is cleared.
    Cork,
    /// `MSG_MORE`, then the rest without it.
    More,
    /// 60,000 bytes, which are fragmented if the device's MTU is smaller.
    Large,
    /// `MSG_ZEROCOPY`.
    Zerocopy,
    /// connect(), then splice() from a pipe.
    Splice,
    /// connect() to the decoy, then sendmsg() with the destination.
    Elsewhere,
    /// connect() to the decoy, dissolved by connect(`AF_UNSPEC`), then connect() to the destination.
    Reconnected,
    /// The sendmsg operation of io_uring, with the destination.
    Uring,
    /// The connect and send operations of io_uring.
    UringConnected,
}

const STREAMS: [(&str, Stream); 4] = [
    ("tcp", Stream::Tcp),
    ("mptcp", Stream::Mptcp),
    ("sctp", Stream::Sctp),
    ("dccp", Stream::Dccp),
];

const OPENINGS: [(&str, Opening); 5] = [
    ("", Opening::Connect),
    ("fastopen", Opening::FastOpen),
    ("fastopen-connect", Opening::FastOpenConnect),
    ("reconnected", Opening::Reconnected),
    ("uring", Opening::Uring),
];

const DATAGRAMS: [(&str, Datagram); 9] = [
    ("udp", Datagram::Udp),
    ("udplite", Datagram::UdpLite),
    ("l2tp", Datagram::L2tp),
    ("ping", Datagram::Ping),
    ("raw-icmp", Datagram::RawIcmp),
    ("raw-udp", Datagram::RawUdp),
    ("raw-tcp", Datagram::RawTcp),
    ("raw-253", Datagram::Raw253),
    ("raw-header", Datagram::RawHeader),
];

const SENDINGS: [(&str, Sending); 13] = [
    ("", Sending::SendTo),
    ("connected", Sending::Connected),
    ("sendmmsg", Sending::Sendmmsg),
    ("gso", Sending::Gso),
    ("cork", Sending::Cork),
    ("more", Sending::More),
    ("large", Sending::Large),
    ("zerocopy", Sending::Zerocopy),
    ("splice", Sending::Splice),
    ("elsewhere", Sending::Elsewhere),
    ("reconnected", Sending::Reconnected),
    ("uring", Sending::Uring),
    ("uring-connected", Sending::UringConnected),
];

impl Method {
    /// All methods, including those that no kernel supports (for example, GSO of pings).
    pub fn all() -> impl Iterator<Item = Self> {
        let streams = STREAMS
            .iter()
            .flat_map(|(_, stream)| OPENINGS.map(|(_, opening)| Self::Stream(*stream, opening)));
        let datagrams = DATAGRAMS.iter().flat_map(|(_, datagram)| {
            SENDINGS.map(|(_, sending)| Self::Datagram(*datagram, sending))
        });
        streams.chain(datagrams)
    }

    /// Whether the method uses a raw socket, which needs `CAP_NET_RAW`.
    #[must_use]
    pub fn is_raw(self) -> bool {
        matches!(self, Self::Datagram(datagram, _) if datagram.is_raw())
    }

    /// Whether the method sends a packet in this manner.
    #[must_use]
    pub fn sends(self, manner: Sending) -> bool {
        matches!(self, Self::Datagram(_, sending) if sending == manner)
    }

    /// Whether the method needs another destination first, given as `+decoy=`.
    #[must_use]
    pub fn has_decoy(self) -> bool {
        matches!(
            self,
            Self::Stream(_, Opening::Reconnected)
                | Self::Datagram(_, Sending::Elsewhere | Sending::Reconnected)
        )
    }

    /// Whether the destination has a port.
    #[must_use]
    pub fn has_port(self) -> bool {
        !matches!(
            self,
            Self::Datagram(
                Datagram::L2tp | Datagram::Ping | Datagram::RawIcmp | Datagram::Raw253,
                _
            )
        )
    }
}

impl Datagram {
    /// Whether the packet is sent by a raw socket.
    #[must_use]
    pub(super) fn is_raw(self) -> bool {
        !matches!(self, Self::Udp | Self::UdpLite | Self::L2tp | Self::Ping)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, manner) = match self {
            Self::Stream(stream, opening) => (name(&STREAMS, stream), name(&OPENINGS, opening)),
            Self::Datagram(datagram, sending) => {
                (name(&DATAGRAMS, datagram), name(&SENDINGS, sending))
            }
        };
        out.write_str(protocol)?;
        if manner.is_empty() {
            return Ok(());
        }
        write!(out, "-{manner}")
    }
}

impl FromStr for Method {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let stream = split(&STREAMS, &OPENINGS, text).map(|(what, how)| Self::Stream(what, how));
        let datagram = || split(&DATAGRAMS, &SENDINGS, text);
        stream
            .or_else(|| datagram().map(|(what, how)| Self::Datagram(what, how)))
            .ok_or_else(|| SpecError::Method(text.to_owned()))
    }
}

/// The name of a value. A test checks that every value is in its table.
fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, candidate)| candidate == value);
    found.map_or("", |(name, _)| name)
}

/// Splits a name into one value of each table.
fn split<A: Copy, B: Copy>(
    protocols: &[(&str, A)],
    manners: &[(&str, B)],
    text: &str,
) -> Option<(A, B)> {
    protocols.iter().find_map(|(protocol, value)| {
        let rest = text.strip_prefix(protocol)?;
        let manner = match rest.strip_prefix('-') {
            Some(manner) if !manner.is_empty() => manner,
            None if rest.is_empty() => "",
            _ => return None,
        };
        let (_, how) = manners.iter().find(|(name, _)| *name == manner)?;
        Some((*value, *how))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_method_has_a_name_of_its_own_that_is_read_back() {
        let mut names = HashSet::new();
        for method in Method::all() {
            let name = method.to_string();
            assert_eq!(name.parse(), Ok(method), "{name}");
            assert!(names.insert(name.clone()), "{name}");
        }
        assert_eq!(names.len(), 4 * 5 + 9 * 13);
    }

    #[test]
    fn names_are_protocol_and_manner() {
        let method = |text: &str| text.parse::<Method>();
        assert_eq!(
            method("tcp"),
            Ok(Method::Stream(Stream::Tcp, Opening::Connect))
        );
        assert_eq!(
            method("raw-udp-connected"),
            Ok(Method::Datagram(Datagram::RawUdp, Sending::Connected))
        );
        for wrong in [
            "",
            "udp-",
            "udp-udp",
            "UDP",
            "tcp-gso",
            "raw",
            "udpconnected",
        ] {
            assert_eq!(method(wrong), Err(SpecError::Method(wrong.to_owned())));
        }
    }
}
