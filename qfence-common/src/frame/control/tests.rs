extern crate std;

use super::*;
use crate::packet::{locate, parse};
use std::{vec, vec::Vec};

const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const NEIGHBOUR: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

/// An IPv6 packet with an ICMPv6 message behind `extensions`: their bytes, of which each begins with the number of the
/// next header.
fn v6(destination: [u8; 16], hops: u8, first: u8, extensions: &[u8], kind: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, first, hops];
    packet.extend(NEIGHBOUR);
    packet.extend(destination);
    packet.extend(extensions);
    packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

fn judge(packet: &Vec<u8>) -> Control {
    let place = locate(packet);
    let at = usize::try_from(place.offset()).unwrap();
    let to = parse(packet).unwrap().destination;
    of_icmp_v6(u32::from(packet[at]), place, to)
}

const PLAIN: &[u8] = &[];
/// Destination options, and then ICMPv6.
const OPTIONS: &[u8] = &[58, 0, 1, 4, 0, 0, 0, 0];
/// The header of a fragment that is whole.
const WHOLE: &[u8] = &[58, 0, 0, 0, 0, 0, 0, 1];

#[test]
fn neighbour_discovery_is_let_through_only_as_neighbours_send_it() {
    for (kind, control) in [
        (133, Control::RouterSolicitation),
        (135, Control::NeighbourSolicitation),
        (136, Control::NeighbourAdvertisement),
    ] {
        assert_eq!(judge(&v6(ALL_NODES, 255, 58, PLAIN, kind)), control);
        assert_eq!(judge(&v6(NEIGHBOUR, 255, 58, PLAIN, kind)), control);
        // It was forwarded, or there is more before it.
        let hidden = [
            v6(ALL_NODES, 254, 58, PLAIN, kind),
            v6(ALL_NODES, 255, 60, OPTIONS, kind),
            v6(ALL_NODES, 255, 44, WHOLE, kind),
        ];
        for packet in hidden {
            assert_eq!(judge(&packet), Control::Ordinary, "{packet:?}");
        }
    }
}

#[test]
fn what_only_routers_send_is_refused_behind_anything() {
    for kind in [134, 137] {
        for (first, extensions) in [(58, PLAIN), (60, OPTIONS), (44, WHOLE)] {
            for to in [ALL_NODES, NEIGHBOUR] {
                let packet = v6(to, 255, first, extensions, kind);
                assert_eq!(judge(&packet), Control::OfRouters, "{packet:?}");
            }
        }
    }
    for kind in [5, 9] {
        assert_eq!(of_icmp_v4(kind), Control::OfRouters);
    }
    for kind in [0, 3, 8, 10, 11, 12] {
        assert_eq!(of_icmp_v4(kind), Control::Ordinary);
    }
}

#[test]
fn memberships_are_told_to_groups_only() {
    for kind in [130, 131, 132, 143] {
        let options = [58, 0, 5, 2, 0, 0, 1, 0];
        assert_eq!(
            judge(&v6(ALL_NODES, 1, 0, &options, kind)),
            Control::Membership
        );
        assert_eq!(
            judge(&v6(NEIGHBOUR, 1, 0, &options, kind)),
            Control::Ordinary
        );
    }
    for kind in [1, 2, 3, 4, 128, 129, 139, 144] {
        assert_eq!(
            judge(&v6(ALL_NODES, 255, 58, PLAIN, kind)),
            Control::Ordinary
        );
    }
    let group = Halves::from_v4(u32::from_be_bytes([224, 0, 0, 22]));
    assert_eq!(of_igmp(group), Control::Membership);
    for address in [[192, 168, 122, 1], [223, 255, 255, 255], [240, 0, 0, 1]] {
        let address = Halves::from_v4(u32::from_be_bytes(address));
        assert_eq!(of_igmp(address), Control::Ordinary);
    }
}

#[test]
fn a_question_to_dhcp_has_both_ports() {
    let udp = |from: u16, to: u16| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([0, 0, 0, 0, 255, 255, 255, 255]);
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.extend([0; 4]);
        parse(&packet).unwrap().payload
    };
    assert!(asks_dhcp(false, udp(68, 67)));
    assert!(asks_dhcp(true, udp(546, 547)));
    for (from, to) in [(67, 68), (68, 68), (1000, 67), (68, 53), (546, 547)] {
        assert!(!asks_dhcp(false, udp(from, to)), "{from} to {to}");
    }
    assert!(!asks_dhcp(true, udp(68, 67)));
    let servers = "ff02::1:2".parse::<std::net::Ipv6Addr>().unwrap();
    assert_eq!(dhcp_servers(true).address(), servers.octets());
    assert_eq!(dhcp_servers(false), Halves::from_v4(0xffff_ffff));
}

#[test]
fn link_local_addresses_are_those_of_one_link() {
    let halves = |text: &str| Halves::of(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    for text in ["fe80::1", "febf::1"] {
        assert!(is_link_local(halves(text)), "{text}");
    }
    for text in ["fec0::1", "fd00::1", "ff02::1", "::1", "::ffff:169.254.1.1"] {
        assert!(!is_link_local(halves(text)), "{text}");
    }
    assert!(is_multicast(halves("ff02::1")) && is_multicast(halves("::ffff:224.0.0.1")));
    assert!(!is_multicast(halves("fe80::1")) && !is_multicast(halves("::ffff:223.0.0.1")));
}
