//! The content of the packets of a probe.

use std::net::IpAddr;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep};
use nix::errno::Errno;

use super::{
    method::{Datagram, Sending},
    result::{Step, Stop},
    spec::Probe,
};

/// The content of every packet that has room for it. A capture identifies packets of probes by it.
pub const HELLO: &[u8] = b"qfence attempt: hello?\n";

/// The length of a large payload, in bytes. More than the MTU of any device except loopback.
pub(super) const LARGE: usize = 60_000;

/// The number of datagrams of methods that send several at once.
pub(super) const SEVERAL: usize = 3;

const HOPS: u8 = 64;
const SEQUENCE: u16 = 1;
const WINDOW: u16 = 65_535;
/// Lengths of the IP headers that are built here, which have no options, in bytes.
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;

/// The bytes that are passed to the socket for one packet of this method.
pub(super) fn packet(probe: &Probe, datagram: Datagram, sending: Sending) -> Result<Vec<u8>, Stop> {
    let body = match sending {
        Sending::Large => HELLO.iter().copied().cycle().take(LARGE).collect(),
        Sending::Gso => HELLO.repeat(SEVERAL),
        _ => HELLO.to_vec(),
    };
    let (mut bytes, v6) = (Vec::new(), probe.destination.address.is_ipv6());
    let (from, to) = (source_port(probe), probe.port);
    let written = match datagram {
        Datagram::Udp | Datagram::UdpLite => return Ok(body),
        // They have no ports that distinguish the packets of this process from those of another probe.
        Datagram::L2tp | Datagram::Raw253 => {
            return Ok([&body[..], &identifier().to_be_bytes()].concat());
        }
        Datagram::Ping | Datagram::RawIcmp if v6 => headers(probe)
            .icmpv6_echo_request(identifier(), SEQUENCE)
            .write(&mut bytes, &body),
        Datagram::Ping | Datagram::RawIcmp => headers(probe)
            .icmpv4_echo_request(identifier(), SEQUENCE)
            .write(&mut bytes, &body),
        Datagram::RawUdp | Datagram::RawHeader => {
            headers(probe).udp(from, to).write(&mut bytes, &body)
        }
        Datagram::RawTcp => headers(probe)
            .tcp(from, to, identifier().into(), WINDOW)
            .syn()
            .write(&mut bytes, &[]),
    };
    // Writing to memory fails only if the body is too long for a packet.
    written.map_err(|_| Stop::Failed(Step::Send, Errno::EMSGSIZE))?;
    if datagram != Datagram::RawHeader {
        bytes.drain(..if v6 { V6_HEADER } else { V4_HEADER });
    }
    Ok(bytes)
}

/// The IP header. It is removed again if the kernel adds its own.
fn headers(probe: &Probe) -> PacketBuilderStep<IpHeaders> {
    match (source(probe), probe.destination.address) {
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), HOPS),
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), HOPS),
        // `+src=` has another family, so bind() has already failed.
        (_, IpAddr::V4(to)) => PacketBuilder::ipv4([0; 4], to.octets(), HOPS),
        (_, IpAddr::V6(to)) => PacketBuilder::ipv6([0; 16], to.octets(), HOPS),
    }
}

/// The source address of a packet built by the probe. A host that sends to itself uses the destination; other
/// destinations need `+src=`.
pub(super) fn source(probe: &Probe) -> IpAddr {
    let destination = probe.destination.address;
    probe.options.source.unwrap_or(destination)
}

/// The source port of a packet built by the probe.
pub(super) fn source_port(probe: &Probe) -> u16 {
    probe.options.source_port.unwrap_or_else(identifier)
}

/// Distinguishes the echo requests and ports of this process from those of others.
pub(super) fn identifier() -> u16 {
    let [low, high, ..] = std::process::id().to_le_bytes();
    u16::from_le_bytes([low, high | 0x80])
}

#[cfg(test)]
mod tests {
    use super::{super::method::Method, *};

    fn packet_of(spec: &str) -> Vec<u8> {
        let probe: Probe = spec.parse().unwrap();
        let Method::Datagram(datagram, sending) = probe.method else {
            panic!("{spec} is no datagram");
        };
        packet(&probe, datagram, sending).unwrap()
    }

    #[test]
    fn packets_begin_where_the_kernel_ends() {
        assert_eq!(packet_of("udp/127.0.0.1/1"), HELLO);
        assert_eq!(packet_of("udp-gso/127.0.0.1/1").len(), 3 * HELLO.len());
        assert_eq!(packet_of("udp-large/127.0.0.1/1").len(), 60_000);
        assert_eq!(packet_of("ping/127.0.0.1")[..2], [8, 0]);
        assert_eq!(packet_of("raw-icmp/::1")[..2], [128, 0]);
        assert_eq!(packet_of("raw-udp/::1/258")[2..4], [1, 2]);
        assert_eq!(packet_of("raw-tcp/127.0.0.1/258")[2..4], [1, 2]);
        assert_eq!(packet_of("raw-header/127.0.0.1/1")[..1], [0x45]);
        assert_eq!(packet_of("raw-header/::1/1")[..1], [0x60]);
        assert_eq!(packet_of("raw-header/::1/1").len(), 48 + HELLO.len());
    }

    #[test]
    fn packets_without_ports_have_the_number_of_their_process() {
        for spec in ["raw-253/127.0.0.1", "l2tp/127.0.0.1"] {
            let expected = [HELLO, &identifier().to_be_bytes()].concat();
            assert_eq!(packet_of(spec), expected, "{spec}");
        }
    }
}
