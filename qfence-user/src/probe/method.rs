//! The methods by which a destination can be tried, and their names: a protocol, and the manner in
//! which its socket is used, as in `udp-sendmmsg`.

use std::{fmt, str::FromStr};

use super::spec::SpecError;

/// A kind of socket, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// A connection.
    Stream(Stream, Opening),
    /// One or more packets.
    Datagram(Datagram, Sending),
}

/// A protocol with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// TCP.
    Tcp,
    /// Multipath TCP.
    Mptcp,
    /// SCTP, one connection a socket.
    Sctp,
    /// DCCP; Linux had it until 6.15.
    Dccp,
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opening {
    /// connect().
    Connect,
    /// sendto() with `MSG_FASTOPEN`: the first bytes go with the first packet.
    FastOpen,
    /// `TCP_FASTOPEN_CONNECT`: connect() waits for the first bytes.
    FastOpenConnect,
    /// connect() to the decoy, undone by connect(`AF_UNSPEC`), then connect() to the destination.
    Reconnected,
    /// io_uring's connect.
    Uring,
}

/// A protocol of single packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datagram {
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// L2TP over IPv4, for which no privilege is needed.
    L2tp,
    /// An ICMP echo request from a "ping" socket, for which no privilege is needed.
    Ping,
    /// An ICMP echo request from a raw socket.
    RawIcmp,
    /// A UDP datagram made by hand, from a raw socket.
    RawUdp,
    /// A TCP SYN made by hand, from a raw socket.
    RawTcp,
    /// A packet of protocol 253, which is for experiments (RFC 3692).
    Raw253,
    /// A UDP datagram with its IP header, both made by hand.
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
    /// `UDP_CORK`: the datagram goes when the option is taken off.
    Cork,
    /// `MSG_MORE`, then the rest.
    More,
    /// 60,000 bytes, which become fragments where the device's MTU is smaller.
    Large,
    /// `MSG_ZEROCOPY`.
    Zerocopy,
    /// connect(), then splice() from a pipe.
    Splice,
    /// connect() to the decoy, then sendmsg() with the destination.
    Elsewhere,
    /// connect() to the decoy, undone by connect(`AF_UNSPEC`), then connect() to the destination.
    Reconnected,
    /// io_uring's sendmsg, with the destination.
    Uring,
    /// io_uring's connect and send.
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
    /// All methods that there are, those that no kernel knows among them (GSO of pings, say).
    pub fn all() -> impl Iterator<Item = Self> {
        let streams = STREAMS
            .iter()
            .flat_map(|(_, stream)| OPENINGS.map(|(_, opening)| Self::Stream(*stream, opening)));
        let datagrams = DATAGRAMS.iter().flat_map(|(_, datagram)| {
            SENDINGS.map(|(_, sending)| Self::Datagram(*datagram, sending))
        });
        streams.chain(datagrams)
    }

    /// Whether it is by a raw socket, for which `CAP_NET_RAW` is needed.
    #[must_use]
    pub fn is_raw(self) -> bool {
        matches!(self, Self::Datagram(datagram, _) if datagram.is_raw())
    }

    /// Whether it is a packet sent in that manner.
    #[must_use]
    pub fn sends(self, manner: Sending) -> bool {
        matches!(self, Self::Datagram(_, sending) if sending == manner)
    }

    /// Whether it has another destination first, which must be given as `+decoy=`.
    #[must_use]
    pub fn has_decoy(self) -> bool {
        matches!(
            self,
            Self::Stream(_, Opening::Reconnected)
                | Self::Datagram(_, Sending::Elsewhere | Sending::Reconnected)
        )
    }

    /// Whether it goes to a port.
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
    /// Whether it is by a raw socket.
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

/// The name of a value; every one is in its table, which a test sees to.
fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, candidate)| candidate == value);
    found.map_or("", |(name, _)| name)
}

/// Splits a name into one of each table.
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
