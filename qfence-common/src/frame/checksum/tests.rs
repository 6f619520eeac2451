extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::packet::locate;

/// The place of the payload of an IPv4 packet with so many bytes of options.
fn v4(protocol: u8, options: u8, fragment: u16) -> Place {
    let length = 20 + options;
    let mut packet = vec![0; usize::from(length) + 40];
    packet[0] = 0x40 | (length / 4);
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[9] = protocol;
    locate(&packet)
}

/// The place of the payload of an IPv6 packet behind destination options of eight bytes.
fn v6(protocol: u8) -> Place {
    let mut packet: Vec<u8> = vec![0; 40 + 8 + 40];
    (packet[0], packet[6], packet[40]) = (0x60, 60, protocol);
    locate(&packet)
}

#[test]
fn the_checksum_of_tcp_or_udp_may_be_written() {
    for (place, begin) in [
        (v4(6, 0, 0), 20),
        (v4(6, 8, 0), 28),
        (v4(6, 0, 0x2000), 20),
        (v6(6), 48),
    ] {
        assert!(Left::at(begin, 16).is_of_payload(place));
        assert!(Left::at(begin, 16).may_be_written(place));
        assert!(!Left::at(begin, 16).is_of_payload(v4(17, 0, 0)));
    }
    for (place, begin) in [(v4(17, 0, 0), 20), (v4(17, 40, 0), 60), (v6(17), 48)] {
        assert!(Left::at(begin, 6).is_of_payload(place));
        assert!(Left::at(begin, 6).may_be_written(place));
    }
}

#[test]
fn what_is_judged_may_not_be_written() {
    for protocol in [1, 2, 6, 17, 47, 58, 132] {
        for (place, begin) in [(v4(protocol, 0, 0), 20), (v6(protocol), 48)] {
            for start in 0..begin + 19 {
                for at in start..begin + 19 {
                    let offset = u16::try_from(at - start).unwrap();
                    let left = Left::at(start, offset);
                    assert_eq!(
                        left.may_be_written(place),
                        left.is_of_payload(place),
                        "{protocol}: {start} + {offset}"
                    );
                }
            }
            // The sum begins before the payload.
            assert!(!Left::at(begin - 1, 100).may_be_written(place));
        }
    }
}

#[test]
fn a_packet_in_the_packet_may_have_one() {
    for (protocol, may) in [
        (4, true),
        (17, true),
        (41, true),
        (47, true),
        (6, false),
        (1, false),
        (58, false),
    ] {
        assert_eq!(
            Left::at(20 + 20, 16).may_be_written(v4(protocol, 0, 0)),
            may
        );
        assert_eq!(Left::at(48 + 40, 6).may_be_written(v6(protocol)), may);
    }
}

#[test]
fn without_a_place_or_a_header_none_may_be_written() {
    let udp = v4(17, 0, 0);
    assert!(!Left::ASTRAY.may_be_written(udp));
    // Before the IP header the difference wraps.
    for start in [u64::MAX, u64::MAX - 13, 0x1_0000, 0x1_0000 + 20] {
        assert!(!Left::at(start, 6).may_be_written(udp));
    }
    assert!(!Left::at(20, 6).may_be_written(Place::UNKNOWN));
    assert!(!Left::at(20, 6).may_be_written(v4(17, 0, 1)));
    assert!(!Left::at(60, 6).may_be_written(v4(17, 0, 1)));
    for place in [udp, Place::UNKNOWN, v4(17, 0, 1)] {
        assert!(Left::NONE.may_be_written(place));
        assert!(!Left::NONE.is_some() && !Left::NONE.is_of_payload(place));
    }
    let left = Left::at(0xffff, 0xffff);
    assert_eq!(Left::from_bits(left.bits()), left);
}
