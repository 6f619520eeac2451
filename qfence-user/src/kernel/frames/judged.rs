//! Frames by their MAC addresses, ethertypes and destinations.

use etherparse::EtherType;
use qfence_common::{
    abi::Counter,
    frame::{LEARNS_MAC, ethernet::mac_number},
    verdict::{FRAME_KIND, NO_RULE, SPOOFED_MAC, UNPARSED},
};

use super::{
    bed::{Bed, DROP, REDIRECT},
    build::{
        ETHERNET, Flags, GUEST_MAC, HOST_MAC, arp, between, ethernet, extended, fragment, to,
        with_macs,
    },
};

const OTHER_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
const INTERNET: &str = "203.0.113.5";

#[test]
fn a_guest_uses_only_its_own_mac_address() {
    let mut bed = Bed::new();
    let frame = to(INTERNET).udp(4000, 5000);
    assert!(bed.judge(&frame).goes_on());
    let mut group = GUEST_MAC;
    group[0] |= 1;
    for other in [OTHER_MAC, HOST_MAC, [0; 6], group, [0xff; 6]] {
        let spoofed = with_macs(frame.clone(), HOST_MAC, other);
        assert_eq!(bed.judge(&spoofed).value, DROP, "{other:x?}");
    }
    // They are one key, and the first is its event.
    let [event] = bed.events()[..] else { panic!() };
    assert_eq!(event.key.rule, SPOOFED_MAC);
    assert_eq!(event.repeats.origin.cgroup, mac_number(OTHER_MAC));
    assert_eq!(bed.counter(Counter::Refused), 5);
    bed.add_mac(OTHER_MAC);
    let second = with_macs(frame, HOST_MAC, OTHER_MAC);
    assert!(bed.judge(&second).goes_on());
}

#[test]
fn the_first_mac_address_of_a_device_is_one_of_the_guests() {
    let mut bed = Bed::new();
    bed.remove_mac(GUEST_MAC);
    let frame = to(INTERNET).udp(4000, 5000);
    let nobody = with_macs(frame.clone(), HOST_MAC, [0; 6]);
    assert_eq!(bed.judge(&frame).value, DROP);
    assert_eq!(bed.judge(&nobody).value, DROP, "no address is known");
    bed.set_first_mac(GUEST_MAC);
    assert!(bed.judge(&frame).goes_on());
    let other = with_macs(frame, HOST_MAC, OTHER_MAC);
    assert_eq!(bed.judge(&other).value, DROP);
    // The guest may have more.
    bed.add_mac(OTHER_MAC);
    assert!(bed.judge(&other).goes_on());
}

#[test]
fn a_device_is_found_at_each_of_its_places() {
    for step in [1, 2, 63] {
        let mut bed = Bed::new();
        bed.move_device(step);
        assert!(bed.judge(&to(INTERNET).udp(4000, 5000)).goes_on(), "{step}");
    }
    let mut bed = Bed::new();
    bed.move_device(1);
    bed.remove_device();
    assert!(
        bed.judge(&to(INTERNET).udp(4000, 5000)).goes_on(),
        "behind a free place"
    );
}

#[test]
fn the_first_frame_determines_an_unknown_mac_address() {
    let mut bed = Bed::new();
    bed.remove_mac(GUEST_MAC);
    let frame = to(INTERNET).udp(4000, 5000);
    let other = with_macs(frame.clone(), HOST_MAC, OTHER_MAC);
    // If it was given, nothing is learnt.
    assert_eq!(bed.judge(&frame).value, DROP);
    assert_eq!(bed.learnt(), None);
    bed.set_device(LEARNS_MAC);
    let mut group = GUEST_MAC;
    group[0] |= 1;
    let of_group = with_macs(frame.clone(), HOST_MAC, group);
    assert_eq!(bed.judge(&of_group).value, DROP);
    let garbage = ethernet(EtherType(0x88b5), &[0; 50]);
    assert_eq!(bed.judge(&garbage).value, DROP);
    assert_eq!(bed.learnt(), None);
    assert_eq!(bed.first_mac(), 0);
    assert!(bed.judge(&frame).goes_on());
    assert_eq!(bed.learnt(), Some(mac_number(GUEST_MAC)));
    assert_eq!(bed.first_mac(), mac_number(GUEST_MAC));
    assert_eq!(bed.judge(&other).value, DROP);
    assert!(bed.judge(&frame).goes_on());
    // Those that were given apply besides.
    bed.add_mac(OTHER_MAC);
    assert!(bed.judge(&other).goes_on());
}

#[test]
fn only_ip_and_arp_go_on() {
    let mut bed = Bed::new();
    // LLDP, EAPOL, MPLS, PPPoE, VLAN tags of both kinds that the kernel left, and LLC.
    for kind in [
        0x88cc, 0x888e, 0x8847, 0x8864, 0x8100, 0x88a8, 0x88b5, 0x9000, 0x0026, 0x86de,
    ] {
        let frame = ethernet(EtherType(kind), &to(INTERNET).udp(1, 2)[ETHERNET..]);
        assert_eq!(bed.judge(&frame).value, DROP, "{kind:#x}");
        assert_eq!(bed.rule(), FRAME_KIND, "{kind:#x}");
    }
    // A packet of the other family, or of none.
    let syn = |address| to(address).tcp(1, 2, Flags::Syn, &[0; 20]);
    let (v4, v6) = (syn(INTERNET), syn("2001:db8:5::5"));
    for (frame, other) in [(&v4, &v6), (&v6, &v4)] {
        assert!(bed.judge(frame).goes_on());
        let mixed = [&frame[..ETHERNET], &other[ETHERNET..]].concat();
        assert_eq!(bed.judge(&mixed).value, DROP);
        assert_eq!(bed.rule(), UNPARSED);
        bed = Bed::new();
    }
    // One that ends within its headers.
    let short = ethernet(EtherType::ARP, &[0]);
    assert_eq!(bed.judge(&short).value, DROP);
    assert_eq!(bed.rule(), UNPARSED);
    assert_eq!(bed.counter(Counter::Unparsed), 1);
}

#[test]
fn a_device_of_no_fence_lets_nothing_through() {
    let mut bed = Bed::with(&["allow any"], true, 0);
    let frame = to(INTERNET).udp(1, 2);
    assert!(bed.judge(&frame).goes_on());
    bed.remove_device();
    assert_eq!(bed.judge(&frame).value, DROP);
    assert_eq!(bed.rule(), FRAME_KIND);
    assert_eq!(bed.counter(Counter::Refused), 1);
}

#[test]
fn the_host_is_refused_and_the_internet_is_not() {
    let mut bed = Bed::new();
    for address in [INTERNET, "192.168.122.9", "2001:db8:5::5", "fd00:122::9"] {
        for frame in [
            to(address).udp(4000, 5000),
            to(address).tcp(4000, 22, Flags::Syn, &[]),
            to(address).tcp(4000, 22, Flags::Ack, b"data"),
            to(address).icmp(64, if address.contains(':') { 128 } else { 8 }, 0, &[0; 8]),
            to(address).any(132, &[0; 12]),
        ] {
            assert!(bed.judge(&frame).goes_on(), "{address}");
        }
    }
    assert_eq!(bed.events().len(), 0);
    for address in [
        "192.168.122.1",
        "10.50.0.1",
        "127.0.0.1",
        "fd00:122::1",
        "fd50::1",
        "fe80::1",
        "::1",
        "fd00:122::",
        "::ffff:192.168.122.1",
    ] {
        for frame in [
            to(address).udp(4000, 5000),
            to(address).tcp(4000, 22, Flags::Syn, &[]),
            to(address).tcp(4000, 22, Flags::Ack, b"data"),
            to(address).tcp(4000, 22, Flags::SynAck, &[]),
            to(address).icmp(64, if address.contains(':') { 128 } else { 8 }, 0, &[0; 8]),
        ] {
            assert_eq!(bed.judge(&frame).value, REDIRECT, "{address}");
        }
    }
    // Broadcast and multicast are never answered.
    for address in [
        "255.255.255.255",
        "192.168.122.255",
        "224.0.0.251",
        "239.255.255.250",
        "ff02::1",
        "ff02::fb",
    ] {
        for frame in [
            to(address).udp(4000, 5000),
            to(address).icmp(64, if address.contains(':') { 128 } else { 8 }, 0, &[0; 8]),
        ] {
            assert_eq!(bed.judge(&frame).value, DROP, "{address}");
        }
    }
}

#[test]
fn a_rule_lets_frames_through_to_the_host() {
    let mut bed = Bed::with(
        &["allow tcp:192.168.122.1:80", "deny udp:203.0.113.5:99"],
        false,
        0,
    );
    assert!(
        bed.judge(&to("192.168.122.1").tcp(4000, 80, Flags::Syn, &[]))
            .goes_on()
    );
    assert_eq!(
        bed.judge(&to("192.168.122.1").tcp(4000, 81, Flags::Syn, &[]))
            .value,
        REDIRECT
    );
    assert_eq!(bed.judge(&to(INTERNET).udp(1, 99)).value, REDIRECT);
    // DNS of the gateway.
    for gateway in ["192.168.122.1", "fd00:122::1", "fe80::1"] {
        assert!(bed.judge(&to(gateway).udp(4000, 53)).goes_on());
        assert!(
            bed.judge(&to(gateway).tcp(4000, 53, Flags::Syn, &[]))
                .goes_on()
        );
    }
    assert_eq!(bed.judge(&to("10.50.0.1").udp(4000, 53)).value, REDIRECT);
}

#[test]
fn fragments_have_no_ports_but_the_first() {
    let mut bed = Bed::new();
    let question = to("192.168.122.1").udp(4000, 53);
    assert!(bed.judge(&fragment(question.clone(), 0, true)).goes_on());
    // Even if their bytes look like the header of a question.
    for has_more in [true, false] {
        let later = fragment(question.clone(), 1, has_more);
        assert_eq!(bed.judge(&later).value, DROP);
        let elsewhere = fragment(to(INTERNET).udp(4000, 53), 1, has_more);
        assert!(bed.judge(&elsewhere).goes_on());
    }
    let question = to("fd00:122::1").udp(4000, 53);
    let whole = extended(&question, 44, &[0, 0, 0, 1, 0, 0, 0, 1]);
    assert!(bed.judge(&whole).goes_on());
    let later = extended(&question, 44, &[0, 0, 0, 8, 0, 0, 0, 1]);
    assert_eq!(bed.judge(&later).value, DROP);
}

#[test]
fn options_and_extension_headers_hide_nothing() {
    let mut bed = Bed::new();
    let mut allowed = to("fd00:122::1").udp(4000, 53);
    let mut refused = to("fd00:122::1").udp(4000, 54);
    for _ in 0..3 {
        allowed = extended(&allowed, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
        refused = extended(&refused, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
        assert!(bed.judge(&allowed).goes_on());
        assert!(!bed.judge(&refused).goes_on());
    }
    bed.events();
    for _ in 0..6 {
        allowed = extended(&allowed, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(bed.judge(&allowed).value, DROP);
    assert_eq!(bed.rule(), UNPARSED);
}

#[test]
fn arp_finds_the_gateway_and_neighbours_only() {
    let mut bed = Bed::new();
    let (guest, gateway, other) = ([192, 168, 122, 50], [192, 168, 122, 1], [10, 50, 0, 1]);
    let neighbour = [192, 168, 122, 9];
    for (operation, sender, target) in [
        (1, guest, gateway),
        (1, guest, neighbour),
        (1, guest, guest),
        // Whether the address is in use.
        (1, [0; 4], guest),
        (2, guest, gateway),
        (2, guest, neighbour),
        // The host may ask from any address of its.
        (2, guest, other),
    ] {
        let frame = arp(operation, GUEST_MAC, sender, target);
        assert!(bed.judge(&frame).goes_on(), "{sender:?} {target:?}");
    }
    assert_eq!(bed.events().len(), 0);
    for (operation, mac, sender, target) in [
        (1, GUEST_MAC, guest, other),
        (1, GUEST_MAC, guest, [127, 0, 0, 1]),
        (1, GUEST_MAC, gateway, neighbour),
        (2, GUEST_MAC, gateway, neighbour),
        (1, GUEST_MAC, other, neighbour),
        (1, OTHER_MAC, guest, gateway),
        (2, HOST_MAC, guest, gateway),
    ] {
        let frame = arp(operation, mac, sender, target);
        assert_eq!(bed.judge(&frame).value, DROP, "{sender:?} {target:?}");
        assert!(
            bed.events()
                .iter()
                .all(|event| event.key.rule == FRAME_KIND)
        );
    }
    for operation in [0, 3, 8] {
        let frame = arp(operation, GUEST_MAC, guest, gateway);
        assert_eq!(bed.judge(&frame).value, DROP, "{operation}");
    }
    assert_eq!(bed.rule(), UNPARSED);
    assert_ne!(UNPARSED, NO_RULE);
}

#[test]
fn what_is_unspecified_is_the_host_and_not_answered() {
    let mut bed = Bed::new();
    for (from, to) in [("0.0.0.0", "192.168.122.1"), ("::", "fd00:122::1")] {
        let frame = between(from, to).udp(4000, 5000);
        assert_eq!(bed.judge(&frame).value, DROP);
    }
    for (from, to) in [("192.168.122.50", "0.0.0.0"), ("fd00:122::50", "::")] {
        assert!(!bed.judge(&between(from, to).udp(4000, 5000)).goes_on());
    }
}

/// A change of the policy ends a connection of the guest: each of its segments is judged, and reset. The remote end learns
/// of it by the guest's own resets, for a while.
#[test]
fn after_a_change_both_ends_of_a_connection_are_reset() {
    let mut bed = Bed::with(
        &["deny tcp:203.0.113.5", "deny tcp:[2001:db8:5::5]"],
        false,
        0,
    );
    for address in [INTERNET, "2001:db8:5::5"] {
        let segment = to(address).tcp(4000, 22, Flags::Ack, b"data");
        let reset = to(address).tcp(4000, 22, Flags::Rst, &[]);
        // Connections of the time before the change are not judged.
        bed.change_at(u64::MAX, false);
        assert_eq!(bed.judge(&reset).value, DROP);
        bed.change_at(u64::MAX, true);
        assert_eq!(bed.judge(&segment).value, REDIRECT);
        assert!(bed.judge(&reset).goes_on());
        let with_data = to(address).tcp(4000, 22, Flags::Rst, b"data");
        assert_eq!(bed.judge(&with_data).value, DROP);
        let to_host = to("192.168.122.1").tcp(4000, 22, Flags::Rst, &[]);
        assert_eq!(bed.judge(&to_host).value, DROP);
    }
}
