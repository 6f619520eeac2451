//! What tells the packets of one probe from those of another.

use super::{ETH_P_IP, ETH_P_IPV6};

/// IP protocols that begin with the source and destination port.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// The bits of an IPv4 header's fragment field that say that a packet is no whole one, or a later part of it.
const FRAGMENTED: u16 = 0x3fff;

/// The identity of a packet. All packets of a connection have the same one, in both directions, and so have datagrams and
/// their answers: each probe has a port of its own. Other packets are identified by their bytes: those of a probe have the
/// number of its process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// The protocol, and the address and port of both ends, the lower one first.
    Ports(u8, [Vec<u8>; 2]),
    /// The first bytes.
    Bytes(Vec<u8>),
}

impl Identity {
    /// The identity of a packet, which begins with its IP header.
    pub(super) fn of(ether_type: u16, packet: &[u8]) -> Self {
        let ends = match ether_type {
            ETH_P_IP => v4(packet),
            ETH_P_IPV6 => v6(packet),
            _ => None,
        };
        match ends {
            Some((protocol, mut ends)) => {
                ends.sort();
                Self::Ports(protocol, ends)
            }
            None => Self::Bytes(packet.to_vec()),
        }
    }
}

/// The protocol and both ends of an IPv4 packet with ports. `None` if it has none.
fn v4(packet: &[u8]) -> Option<(u8, [Vec<u8>; 2])> {
    let header = 4 * usize::from(packet.first()? & 0xf);
    let fragment = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
    let protocol = *packet.get(9)?;
    if fragment & FRAGMENTED != 0 {
        return None;
    }
    let addresses = [packet.get(12..16)?, packet.get(16..20)?];
    ends(protocol, addresses, packet.get(header..)?)
}

/// The same of an IPv6 packet. One with extension headers is identified by its bytes.
fn v6(packet: &[u8]) -> Option<(u8, [Vec<u8>; 2])> {
    let addresses = [packet.get(8..24)?, packet.get(24..40)?];
    ends(*packet.get(6)?, addresses, packet.get(40..)?)
}

fn ends(protocol: u8, [from, to]: [&[u8]; 2], rest: &[u8]) -> Option<(u8, [Vec<u8>; 2])> {
    if !WITH_PORTS.contains(&protocol) {
        return None;
    }
    let ends = [[from, rest.get(..2)?], [to, rest.get(2..4)?]];
    Some((protocol, ends.map(|end| end.concat())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of the protocol from 127.0.0.1 to 127.0.0.2, with ports, and more that does not matter.
    fn packet(protocol: u8, ports: [u16; 2], more: u8) -> Vec<u8> {
        let mut packet = vec![0; 20];
        (packet[0], packet[5], packet[9]) = (0x45, more, protocol);
        packet[12..20].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 2]);
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet.push(more);
        packet
    }

    fn of(packet: &[u8]) -> Identity {
        Identity::of(ETH_P_IP, packet)
    }

    #[test]
    fn a_connection_has_one_identity() {
        let there = packet(6, [40000, 8080], 1);
        let mut back = packet(6, [8080, 40000], 2);
        back[12..20].copy_from_slice(&[127, 0, 0, 2, 127, 0, 0, 1]);
        assert_eq!(of(&there), of(&back));
        assert_ne!(of(&there), of(&packet(6, [40002, 8080], 1)));
        assert_ne!(of(&there), of(&packet(17, [40000, 8080], 1)));
    }

    #[test]
    fn a_packet_without_ports_is_identified_by_its_bytes() {
        let one = packet(253, [1, 2], 1);
        assert_eq!(of(&one), Identity::Bytes(one.clone()));
        assert_ne!(of(&one), of(&packet(253, [1, 2], 2)));
        let mut fragment = packet(17, [1, 2], 1);
        fragment[7] = 4;
        assert_eq!(of(&fragment), Identity::Bytes(fragment.clone()));
        for short in [&[][..], &[0x45], &one[..21]] {
            assert_eq!(of(short), Identity::Bytes(short.to_vec()));
        }
    }

    #[test]
    fn ipv6_is_identified_alike() {
        let v6 = |source: u8, ports: [u8; 4]| {
            let mut packet = vec![0; 40];
            (packet[6], packet[23], packet[39]) = (17, source, 9);
            packet.extend_from_slice(&ports);
            Identity::of(ETH_P_IPV6, &packet)
        };
        assert_eq!(v6(1, [1, 2, 3, 4]), v6(1, [1, 2, 3, 4]));
        assert_ne!(v6(1, [1, 2, 3, 4]), v6(1, [1, 3, 3, 4]));
        assert_ne!(v6(1, [1, 2, 3, 4]), v6(2, [1, 2, 3, 4]));
    }
}
