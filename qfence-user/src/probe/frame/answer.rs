//! What the host's side answered into the device.

use std::net::IpAddr;

use etherparse::{SlicedPacket, TransportSlice};

use super::{tap::Received, wire};

/// A frame that the guest got, of a kind that answers something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// ARP: the address is that of the host.
    Arp,
    /// The answer to neighbour solicitation.
    Advertisement,
    /// The second segment of a connection.
    Accepted,
    /// A reset of a connection.
    Reset,
    /// Another segment of a connection.
    Segment,
    /// A datagram.
    Datagram,
    /// The reply to a ping.
    Echo,
    /// ICMP: administratively prohibited, the refusal of a fence.
    Prohibited,
    /// Another error by ICMP.
    Error,
    /// An answer whose checksum is wrong.
    Broken,
}

/// The answers among frames, in order and each once.
#[must_use]
pub fn answers(frames: &[Received]) -> Vec<Answer> {
    let mut all: Vec<_> = frames.iter().filter_map(read).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The port of the guest that a segment or datagram is for.
#[must_use]
pub fn port(frame: &Received) -> Option<u16> {
    let sliced = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
    match sliced.transport? {
        TransportSlice::Tcp(tcp) => Some(tcp.destination_port()),
        TransportSlice::Udp(udp) => Some(udp.destination_port()),
        _ => None,
    }
}

/// The answer that a frame is; `None` if the host sent it without being asked.
#[must_use]
pub fn read(frame: &Received) -> Option<Answer> {
    let bytes = &frame.bytes;
    let kind = u16::from_be_bytes([*bytes.get(12)?, *bytes.get(13)?]);
    let packet = bytes.get(14..)?;
    match kind {
        0x0806 => (packet.get(6..8)? == [0, 2]).then_some(Answer::Arp),
        0x0800 => {
            let header = usize::from(packet.first()? & 15) * 4;
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let octets = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
            let ends = (octets(12)?.into(), octets(16)?.into());
            if wire::checksum(&[packet.get(..header)?]) != 0 {
                return Some(Answer::Broken);
            }
            transport(frame, ends, packet[9], packet.get(header..length)?)
        }
        0x86dd => {
            let octets =
                |at: usize| -> Option<[u8; 16]> { packet.get(at..at + 16)?.try_into().ok() };
            let ends = (octets(8)?.into(), octets(24)?.into());
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            let (mut header, mut next) = (40, packet[6]);
            // Options of eight bytes.
            while next == 60 && *packet.get(header + 1)? == 0 {
                next = *packet.get(header)?;
                header += 8;
            }
            transport(frame, ends, next, packet.get(header..40 + length)?)
        }
        _ => None,
    }
}

fn transport(
    frame: &Received,
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    payload: &[u8],
) -> Option<Answer> {
    let answer = match protocol {
        6 => match payload.get(13)? {
            flags if flags & 4 != 0 => Answer::Reset,
            flags if flags & 0x12 == 0x12 => Answer::Accepted,
            _ => Answer::Segment,
        },
        17 => Answer::Datagram,
        1 => match (payload.first()?, payload.get(1)?) {
            (0, _) => Answer::Echo,
            (3, 13) => Answer::Prohibited,
            (3 | 4 | 5 | 11 | 12, _) => Answer::Error,
            _ => return None,
        },
        58 => match (payload.first()?, payload.get(1)?) {
            (129, _) => Answer::Echo,
            (136, _) => Answer::Advertisement,
            (1, 1) => Answer::Prohibited,
            (1..=127, _) => Answer::Error,
            _ => return None,
        },
        _ => return None,
    };
    let sum = match protocol {
        1 => wire::checksum(&[payload]),
        _ => wire::transport_sum(source, destination, protocol, &[payload]),
    };
    let is_without = protocol == 17 && payload.get(6..8)? == [0, 0];
    if sum != 0 && !frame.is_partial && !is_without {
        return Some(Answer::Broken);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 122, 10));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

    fn received(packet: &[u8]) -> Received {
        Received {
            bytes: wire::packet([2; 6], [4; 6], packet),
            is_partial: false,
        }
    }

    #[test]
    fn a_reset_is_told_from_an_acceptance() {
        let flags = |syn, ack, rst| wire::Flags { syn, ack, rst };
        for (flags, answer) in [
            (flags(true, true, false), Answer::Accepted),
            (flags(false, true, true), Answer::Reset),
            (flags(false, true, false), Answer::Segment),
        ] {
            let segment = received(&wire::tcp((B, 80), (A, 4000), flags));
            assert_eq!(read(&segment), Some(answer));
        }
    }

    #[test]
    fn a_prohibition_is_told_from_other_errors() {
        let error = |code| read(&received(&wire::icmp(B, A, 3, code, &[0; 32])));
        assert_eq!(error(13), Some(Answer::Prohibited));
        assert_eq!(error(3), Some(Answer::Error));
        assert_eq!(read(&received(&wire::ping(B, A, 1))), None);
    }

    #[test]
    fn a_wrong_checksum_is_noticed_unless_it_is_left_to_the_guest() {
        let mut frame = received(&wire::udp((B, 53), (A, 4000), b"an answer"));
        assert_eq!(read(&frame), Some(Answer::Datagram));
        assert_eq!(port(&frame), Some(4000));
        *frame.bytes.last_mut().unwrap() ^= 1;
        assert_eq!(read(&frame), Some(Answer::Broken));
        frame.is_partial = true;
        assert_eq!(read(&frame), Some(Answer::Datagram));
        *frame.bytes.get_mut(14 + 8).unwrap() ^= 1;
        assert_eq!(read(&frame), Some(Answer::Broken));
    }
}
