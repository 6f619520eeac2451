//! Answers to refused frames.

use etherparse::{SlicedPacket, TransportSlice, checksum::Sum16BitWords};
use qfence_common::frame::{
    ANSWER_PROHIBITED, ANSWER_UNREACHABLE, DROP_SILENTLY, ethernet::mac_number,
};

use super::{
    bed::{Bed, DROP, REDIRECT},
    build::{ETHERNET, Flags, GUEST_MAC, HOST_MAC, between, extended, fragment, to, with_macs},
};

const HOSTS: [&str; 2] = ["192.168.122.1", "fd00:122::1"];

/// Checks addresses and checksums of an answer to a frame.
fn check(frame: &[u8], answer: &[u8]) {
    assert_eq!(answer[..6], frame[6..12]);
    assert_eq!(answer[6..12], frame[..6]);
    assert_eq!(answer[12..14], frame[12..14]);
    let (addresses, protocol, payload) = ends(answer);
    let (asked, _, _) = ends(frame);
    let half = addresses.len() / 2;
    assert_eq!(addresses[..half], asked[half..]);
    assert_eq!(addresses[half..], asked[..half]);
    let mut sum = Sum16BitWords::new();
    if protocol != 1 {
        for address in addresses.chunks_exact(4) {
            sum = sum.add_4bytes(address.try_into().unwrap());
        }
        sum = sum.add_2bytes([0, protocol]);
        let length = u16::try_from(payload.len()).unwrap();
        sum = sum.add_2bytes(length.to_be_bytes());
    }
    let sum = sum.add_slice(payload).ones_complement();
    assert_eq!(sum, 0, "the checksum");
    if answer[ETHERNET] >> 4 == 4 {
        let header = &answer[ETHERNET..ETHERNET + 20];
        assert_eq!(Sum16BitWords::new().add_slice(header).ones_complement(), 0);
    }
}

/// The addresses, the protocol and the payload of the packet in a frame, by its lengths.
fn ends(frame: &[u8]) -> (&[u8], u8, &[u8]) {
    let packet = &frame[ETHERNET..];
    if packet[0] >> 4 == 4 {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        assert_eq!(length, packet.len());
        (&packet[12..20], packet[9], &packet[20..])
    } else {
        let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        assert_eq!(length + 40, packet.len());
        (&packet[8..40], packet[6], &packet[40..])
    }
}

#[test]
fn tcp_is_reset() {
    let mut bed = Bed::new();
    for host in HOSTS {
        for (flags, data, sequence, acknowledged) in [
            (Flags::Syn, 0, 0, 1001),
            (Flags::Syn, 7, 0, 1008),
            (Flags::Ack, 0, 7000, 0),
            (Flags::Ack, 1400, 7000, 0),
            (Flags::SynAck, 0, 7000, 0),
        ] {
            let frame = to(host).tcp(4000, 22, flags, &vec![b'x'; data]);
            let run = bed.judge(&frame);
            assert_eq!(run.value, REDIRECT);
            check(&frame, &run.frame);
            let sliced = SlicedPacket::from_ethernet(&run.frame).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
                panic!("{sliced:?}");
            };
            assert_eq!((tcp.source_port(), tcp.destination_port()), (22, 4000));
            assert!(tcp.rst() && !tcp.syn() && !tcp.fin());
            assert_eq!(tcp.ack(), flags == Flags::Syn);
            assert_eq!(tcp.sequence_number(), sequence);
            assert_eq!(tcp.acknowledgment_number(), acknowledged);
            assert_eq!(tcp.payload().len(), 0);
        }
        let reset = to(host).tcp(4000, 22, Flags::Rst, &[]);
        assert_eq!(bed.judge(&reset).value, DROP);
    }
    // Behind extension headers and in a first fragment as well.
    let frame = to(HOSTS[1]).tcp(4000, 22, Flags::Syn, &[]);
    let frame = extended(&frame, 60, &[0, 0, 1, 4, 0, 0, 0, 0]);
    let run = bed.judge(&frame);
    assert_eq!(run.value, REDIRECT);
    let sliced = SlicedPacket::from_ethernet(&run.frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("{sliced:?}");
    };
    assert_eq!(tcp.acknowledgment_number(), 1001);
    check(&frame, &run.frame);
}

#[test]
fn other_protocols_get_an_icmp_error_that_quotes_them() {
    for (deny_with, v4, v6) in [(ANSWER_PROHIBITED, 13, 1), (ANSWER_UNREACHABLE, 3, 4)] {
        let mut bed = Bed::with(&[], false, deny_with);
        for host in HOSTS {
            let (ping, kind, code) = if host.contains(':') {
                (128, 1, v6)
            } else {
                (8, 3, v4)
            };
            for frame in [
                to(host).udp(4000, 5000),
                to(host).any(132, &[1; 12]),
                to(host).icmp(64, ping, 0, &[1; 200]),
            ] {
                let run = bed.judge(&frame);
                assert_eq!(run.value, REDIRECT);
                check(&frame, &run.frame);
                let (_, protocol, message) = ends(&run.frame);
                assert_eq!(protocol, if kind == 3 { 1 } else { 58 });
                assert_eq!(message[..2], [kind, code]);
                assert_eq!(message[4..8], [0; 4]);
                let quoted = &message[8..];
                assert_eq!(quoted, &frame[ETHERNET..ETHERNET + quoted.len()]);
                let header = if kind == 3 { 20 } else { 40 };
                assert_eq!(quoted.len(), header + 8);
            }
        }
    }
}

#[test]
fn what_is_to_be_dropped_silently_is() {
    let mut bed = Bed::with(&[], false, DROP_SILENTLY);
    for host in HOSTS {
        assert_eq!(bed.judge(&to(host).udp(4000, 5000)).value, DROP);
        assert_eq!(
            bed.judge(&to(host).tcp(4000, 22, Flags::Syn, &[])).value,
            DROP
        );
        assert!(bed.judge(&to(host).udp(4000, 53)).goes_on());
    }
}

#[test]
fn errors_and_what_many_receive_are_not_answered() {
    let mut bed = Bed::new();
    let frame = to(HOSTS[0]).udp(4000, 5000);
    assert_eq!(bed.judge(&frame).value, REDIRECT);
    let group = [1, 0, 0x5e, 0, 0, 1];
    assert_ne!(mac_number(group), mac_number(HOST_MAC));
    for mac in [[0xff; 6], group] {
        assert_eq!(
            bed.judge(&with_macs(frame.clone(), mac, GUEST_MAC)).value,
            DROP
        );
    }
    for from in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "192.168.122.255"] {
        assert_eq!(
            bed.judge(&between(from, HOSTS[0]).udp(1, 2)).value,
            DROP,
            "{from}"
        );
    }
    for from in ["::", "ff02::1"] {
        assert_eq!(
            bed.judge(&between(from, HOSTS[1]).udp(1, 2)).value,
            DROP,
            "{from}"
        );
    }
    assert_eq!(bed.judge(&fragment(frame.clone(), 3, false)).value, DROP);
    assert_eq!(bed.judge(&fragment(frame, 0, true)).value, REDIRECT);
    for kind in [0, 3, 4, 11, 12, 13] {
        assert_eq!(
            bed.judge(&to(HOSTS[0]).icmp(64, kind, 0, &[0; 40])).value,
            DROP,
            "{kind}"
        );
    }
    for kind in [1, 2, 3, 4, 129] {
        assert_eq!(
            bed.judge(&to(HOSTS[1]).icmp(64, kind, 0, &[0; 60])).value,
            DROP,
            "{kind}"
        );
    }
}
