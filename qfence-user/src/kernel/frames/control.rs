//! Neighbour discovery, groups, and DHCP.

use qfence_common::verdict::FRAME_KIND;

use super::{
    bed::{Bed, DROP},
    build::{ETHERNET, GUEST, between, extended, fragment, to},
};

/// The body of a message of neighbour discovery about a target.
fn about(target: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    [&[0; 4][..], &target.octets()].concat()
}

#[test]
fn neighbour_discovery_is_for_the_gateway_and_neighbours() {
    let mut bed = Bed::new();
    let group = to("ff02::1:ff00:1");
    for target in [
        "fd00:122::1",
        "fe80::1",
        "fd00:122::9",
        "fe80::9",
        "fe80::5",
    ] {
        assert!(
            bed.judge(&group.icmp(255, 135, 0, &about(target)))
                .goes_on(),
            "{target}"
        );
    }
    for target in ["fd50::1", "::1"] {
        let asked = group.icmp(255, 135, 0, &about(target));
        assert_eq!(bed.judge(&asked).value, DROP, "{target}");
        assert_eq!(bed.rule(), FRAME_KIND);
        bed = Bed::new();
    }
    for target in ["fd00:122::50", "fe80::9", "fe80::5"] {
        let told = to("fd00:122::1").icmp(255, 136, 0, &about(target));
        assert!(bed.judge(&told).goes_on(), "{target}");
    }
    for target in ["fd00:122::1", "fe80::1", "fd50::1"] {
        let told = to("ff02::1").icmp(255, 136, 0, &about(target));
        assert_eq!(bed.judge(&told).value, DROP, "{target}");
    }
    assert!(
        bed.judge(&to("ff02::2").icmp(255, 133, 0, &[0; 4]))
            .goes_on()
    );
    // A message that was forwarded is none, and the policy refuses it.
    for kind in [133, 135, 136] {
        let forwarded = to("fd00:122::1").icmp(64, kind, 0, &about("fd00:122::9"));
        assert!(!bed.judge(&forwarded).goes_on(), "{kind}");
    }
    // One that ends before its target is none either.
    let short = to("fd00:122::1").icmp(255, 135, 0, &[0; 4]);
    assert_eq!(bed.judge(&short).value, DROP);
}

#[test]
fn a_guest_is_no_router() {
    for (address, kind) in [
        ("ff02::1", 134),
        ("fd00:122::9", 134),
        ("fd00:122::9", 137),
        ("192.168.122.9", 5),
        ("192.168.122.9", 9),
    ] {
        let mut bed = Bed::new();
        let frame = to(address).icmp(255, kind, 0, &[0; 24]);
        assert_eq!(bed.judge(&frame).value, DROP, "{address} {kind}");
        assert_eq!(bed.rule(), FRAME_KIND);
        if kind > 9 {
            let hidden = extended(&frame, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
            assert_eq!(bed.judge(&hidden).value, DROP, "{address} {kind}");
            assert_eq!(bed.events().len(), 0, "one key");
        }
    }
    let mut bed = Bed::new();
    let error = to("192.168.122.9").icmp(64, 3, 4, &[0; 32]);
    assert!(bed.judge(&error).goes_on());
}

#[test]
fn groups_are_told_to_bridges() {
    let mut bed = Bed::new();
    let router_alert = [0, 0, 5, 2, 0, 0, 1, 0];
    for kind in [130, 131, 132, 143] {
        let report = to("ff02::16").icmp(1, kind, 0, &[0; 20]);
        assert!(bed.judge(&report).goes_on(), "{kind}");
        assert!(bed.judge(&extended(&report, 0, &router_alert)).goes_on());
        let to_host = to("fd00:122::1").icmp(1, kind, 0, &[0; 20]);
        assert!(!bed.judge(&to_host).goes_on(), "{kind}");
    }
    assert!(
        bed.judge(&to("224.0.0.22").any(2, &[0x22, 0, 0, 0, 0, 0, 0, 0]))
            .goes_on()
    );
    assert!(
        !bed.judge(&to("192.168.122.1").any(2, &[0x22, 0, 0, 0]))
            .goes_on()
    );
}

#[test]
fn dhcp_is_for_guests_whom_the_host_serves() {
    let questions = [
        between("0.0.0.0", "255.255.255.255").udp(68, 67),
        between(GUEST, "192.168.122.1").udp(68, 67),
        between("fe80::50", "ff02::1:2").udp(546, 547),
        between("fe80::50", "fe80::1").udp(546, 547),
    ];
    let mut bed = Bed::new();
    for question in &questions {
        assert!(bed.judge(question).goes_on());
    }
    let others = [
        between("0.0.0.0", "255.255.255.255").udp(67, 68),
        between("0.0.0.0", "255.255.255.255").udp(69, 67),
        between("0.0.0.0", "192.168.122.255").udp(68, 67),
        between(GUEST, "10.50.0.1").udp(68, 67),
        between("fe80::50", "ff02::1:3").udp(546, 547),
        between("fe80::50", "fd50::1").udp(546, 547),
        between("fe80::50", "ff02::1:2").udp(68, 67),
        fragment(between("0.0.0.0", "255.255.255.255").udp(68, 67), 0, true),
        extended(&questions[2], 44, &[0, 0, 0, 1, 0, 0, 0, 1]),
    ];
    for other in &others {
        assert!(!bed.judge(other).goes_on(), "{:x?}", &other[ETHERNET..]);
    }
    bed.set_device(0);
    for question in &questions {
        assert!(!bed.judge(question).goes_on());
    }
}
