//! Checksums that the guest leaves to the host, at a tap device with the header of virtio.

use super::{
    build::{ETHERNET, Flags, GUEST_MAC, arp, extended, to},
    tagged::{ELSEWHERE, UNSEEN, compare_at},
};
use crate::kernel::testing::Tap;

/// Where the headers of TCP and UDP have the checksum.
const IN_TCP: usize = 16;
const IN_UDP: usize = 6;

/// The first byte of the header (`VIRTIO_NET_HDR_F_NEEDS_CSUM`), and its length.
const NEEDS_CHECKSUM: u8 = 1;
const HEADER: usize = 10;

/// A frame that is complete.
fn whole(frame: &[u8]) -> Vec<u8> {
    [&[0; HEADER], frame].concat()
}

/// A frame whose checksum is left to the host: the sum begins at a byte of the IP packet, and the checksum is so far behind it.
fn left(frame: &[u8], start: usize, offset: usize) -> Vec<u8> {
    let mut bytes = whole(frame);
    bytes[0] = NEEDS_CHECKSUM;
    for (at, number) in [(6, ETHERNET + start), (8, offset)] {
        bytes[at..at + 2].copy_from_slice(&u16::try_from(number).unwrap().to_ne_bytes());
    }
    bytes
}

#[test]
fn a_checksum_is_left_only_where_tcp_and_udp_have_theirs() {
    let (v4, v6) = (to("203.0.113.5"), to("2001:db8:5::5"));
    let segment = |to: super::build::Between| to.tcp(4000, 443, Flags::Ack, &[b'x'; 100]);
    let far = extended(&v6.udp(4000, 5000), 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    let tunnel = v4.any(47, &[0; 60]);
    let request = arp(1, GUEST_MAC, [192, 168, 122, 50], [192, 168, 122, 1]);
    let rows = [
        ("UDP", whole(&v4.udp(4000, 5000)), ELSEWHERE),
        (
            "UDP, left",
            left(&v4.udp(4000, 5000), 20, IN_UDP),
            ELSEWHERE,
        ),
        (
            "UDP in IPv6, left",
            left(&v6.udp(4000, 5000), 40, IN_UDP),
            ELSEWHERE,
        ),
        (
            "behind an extension header",
            left(&far, 48, IN_UDP),
            ELSEWHERE,
        ),
        ("before it", left(&far, 40, IN_UDP), UNSEEN),
        ("TCP, left", left(&segment(v4), 20, IN_TCP), ELSEWHERE),
        (
            "TCP in IPv6, left",
            left(&segment(v6), 40, IN_TCP),
            ELSEWHERE,
        ),
        (
            "TCP, as if it were UDP",
            left(&segment(v4), 20, IN_UDP),
            UNSEEN,
        ),
        ("a port of UDP", left(&v4.udp(4000, 5000), 20, 2), UNSEEN),
        ("a port of TCP", left(&segment(v6), 40, 2), UNSEEN),
        (
            "two bytes earlier",
            left(&v4.udp(4000, 5000), 18, IN_UDP),
            UNSEEN,
        ),
        (
            "two bytes later",
            left(&v4.udp(4000, 5000), 22, IN_UDP),
            UNSEEN,
        ),
        (
            "the same place, another sum",
            left(&v4.udp(4000, 5000), 18, IN_UDP + 2),
            UNSEEN,
        ),
        ("an address", left(&v4.udp(4000, 5000), 10, 6), UNSEEN),
        ("in a tunnel", left(&tunnel, 20 + 4 + 20, IN_UDP), ELSEWHERE),
        ("the header of a tunnel", left(&tunnel, 20, 2), UNSEEN),
        ("ARP", whole(&request), ELSEWHERE),
        ("ARP, left", left(&request, 20, 2), UNSEEN),
        ("UDP again", whole(&v4.udp(4000, 5000)), ELSEWHERE),
    ];
    compare_at(Tap::with_virtio, &[], false, 0, &rows);
}
