//! Tags of frames that go on, at a tap device.

use std::time::{Duration, Instant};

use aya::maps::{Array, IterableMap, MapData};
use etherparse::EtherType;
use qfence_common::frame::{EXCEPTION, SERVED, TAG};

use super::{
    bed::{Bed, SLOT},
    build::{ETHERNET, Flags, GUEST, GUEST_MAC, arp, between, ethernet, to},
};
use crate::kernel::{
    device::tcx::{self, Way},
    testing::{Scene, Tap, apart, index_of, tells_tag},
};

/// The tag of a frame that may not reach the host, and of one that may.
pub(super) const ELSEWHERE: u32 = TAG as u32 | SLOT;
const ANYWHERE: u32 = ELSEWHERE | EXCEPTION as u32;

/// BPF_TCX_INGRESS.
const INGRESS: Way = Way(46);

/// A word that is no tag: no frame was seen.
pub(super) const UNSEEN: u32 = u32::MAX;

/// Writes frames to a tap, and compares their tags behind the program; [`UNSEEN`] for those that are dropped.
fn compare(rules: &[&str], monitor: bool, flags: u32, rows: &[(&str, Vec<u8>, u32)]) {
    compare_at(Tap::new, rules, monitor, flags, rows);
}

/// As above, at a tap that this makes.
pub(super) fn compare_at(
    tap: fn() -> Tap,
    rules: &[&str],
    monitor: bool,
    flags: u32,
    rows: &[(&str, Vec<u8>, u32)],
) {
    apart(|_: &Scene| {
        let mut tap = tap();
        let index = index_of("t0");
        let mut bed = Bed::of(index, rules, monitor, 0, 0);
        bed.set_device(flags);
        let mut seen: Array<MapData, u32> = Array::create(1, 0).unwrap();
        let _second =
            tcx::attach(&tells_tag(IterableMap::map(&seen).fd()), index, INGRESS).unwrap();
        let _first = tcx::attach(&bed.program(), index, INGRESS).unwrap();
        for (what, frame, tag) in rows {
            seen.set(0, UNSEEN, 0).unwrap();
            tap.write(frame);
            // The kernel runs the programs before it returns, mostly.
            let deadline = Instant::now() + Duration::from_millis(100);
            while seen.get(&0, 0).unwrap() == UNSEEN && Instant::now() < deadline {}
            assert_eq!(seen.get(&0, 0).unwrap(), *tag, "{what}");
        }
    });
}

/// A frame with a VLAN tag, which the kernel takes out of it.
fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let inner = [&vlan.to_be_bytes(), &frame[12..]].concat();
    ethernet(EtherType::VLAN_TAGGED_FRAME, &inner)
}

#[test]
fn what_goes_on_is_tagged_and_exceptions_are_marked() {
    let solicitation = [
        &[0; 4][..],
        &[0xfe, 0x80, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 0, 1],
    ];
    let internet = to("203.0.113.5").udp(4000, 5000);
    let request = arp(1, GUEST_MAC, [192, 168, 122, 50], [192, 168, 122, 1]);
    let rows = [
        ("UDP to the internet", internet.clone(), ELSEWHERE),
        (
            "TCP to the internet",
            to("2001:db8:5::5").tcp(1, 2, Flags::Ack, b"data"),
            ELSEWHERE,
        ),
        (
            "UDP to the host",
            to("192.168.122.1").udp(4000, 5000),
            UNSEEN,
        ),
        ("DNS", to("192.168.122.1").udp(4000, 53), ANYWHERE),
        (
            "what a rule allows",
            to("10.50.0.1").tcp(4000, 80, Flags::Syn, &[]),
            ANYWHERE,
        ),
        (
            "a group that a rule allows",
            to("224.0.0.251").udp(5353, 5353),
            ANYWHERE,
        ),
        (
            "DHCP",
            between("0.0.0.0", "255.255.255.255").udp(68, 67),
            ANYWHERE,
        ),
        ("ARP", request.clone(), ELSEWHERE),
        (
            "a neighbour solicitation",
            to("ff02::1:ff00:1").icmp(255, 135, 0, &solicitation.concat()),
            ANYWHERE,
        ),
        (
            "a router solicitation",
            to("ff02::2").icmp(255, 133, 0, &[0; 4]),
            ANYWHERE,
        ),
        (
            "a report of groups",
            to("ff02::16").icmp(1, 143, 0, &[0; 4]),
            ELSEWHERE,
        ),
        (
            "IGMP",
            to("224.0.0.22").any(2, &[0x22, 0, 0, 0, 0, 0, 0, 0]),
            ELSEWHERE,
        ),
        ("a VLAN", tagged(5, &internet), UNSEEN),
        ("a VLAN with the gateway", tagged(5, &request), UNSEEN),
        ("a priority", tagged(0xe000, &internet), ELSEWHERE),
        (
            "a priority to the host",
            tagged(0, &to("192.168.122.1").udp(4000, 5000)),
            UNSEEN,
        ),
        (
            "a priority in a priority",
            tagged(0, &tagged(0, &internet)),
            UNSEEN,
        ),
        (
            "much data",
            to("203.0.113.5").tcp(1, 2, Flags::Ack, &[b'x'; 1400]),
            ELSEWHERE,
        ),
    ];
    assert_eq!(internet[12..ETHERNET], [8, 0]);
    assert_eq!(GUEST, "192.168.122.50");
    let rules = ["allow tcp:10.50.0.1:80", "allow udp:224.0.0.251:5353"];
    compare(&rules, false, SERVED, &rows);
}

#[test]
fn under_a_monitored_policy_everything_may_reach_the_host() {
    let rows = [
        ("the internet", to("203.0.113.5").udp(4000, 5000), ANYWHERE),
        ("the host", to("192.168.122.1").udp(4000, 5000), ANYWHERE),
        (
            "what is no IP",
            ethernet(EtherType(0x88cc), &[0; 60]),
            ANYWHERE,
        ),
    ];
    compare(&[], true, SERVED, &rows);
}

#[test]
fn dhcp_reaches_the_host_only_where_it_serves_the_guest() {
    let rows = |tag| {
        [
            (
                "DHCP",
                between("0.0.0.0", "255.255.255.255").udp(68, 67),
                tag,
            ),
            (
                "DHCPv6",
                between("fe80::50", "ff02::1:2").udp(546, 547),
                tag,
            ),
        ]
    };
    compare(&[], false, SERVED, &rows(ANYWHERE));
    compare(&[], false, 0, &rows(ELSEWHERE));
}
