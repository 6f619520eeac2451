//! Records and counters of frames.

use etherparse::EtherType;
use qfence_common::{
    Action, Hook, NO_UID, OTHERS, Outcome,
    abi::Counter,
    frame::{NOT_IP, ethernet::mac_number},
    tally::Class,
    verdict::{FRAME_KIND, SPOOFED_MAC},
};

use super::{
    bed::{Bed, DEVICE, DROP, LOGS, NEXT, halves},
    build::{ETHERNET, Flags, GUEST, GUEST_MAC, HOST_MAC, arp, between, ethernet, to, with_macs},
};

#[test]
fn a_refusal_is_recorded_with_its_device_and_addresses() {
    let mut bed = Bed::new();
    let frame = to("192.168.122.1").tcp(4000, 22, Flags::Syn, &[]);
    for _ in 0..3 {
        bed.judge(&frame);
    }
    let events = bed.events();
    assert_eq!(events.len(), 1);
    let (key, origin) = (events[0].key, events[0].repeats.origin);
    assert_eq!(key.hook, Hook::Frame as u32);
    assert_eq!(key.pid, DEVICE);
    assert_eq!((key.address, key.port), (halves("192.168.122.1"), 22));
    assert_eq!((key.protocol, key.monitored), (6, 0));
    assert_eq!((origin.source, origin.source_port), (halves(GUEST), 4000));
    assert_eq!(origin.cgroup, mac_number(GUEST_MAC));
    assert_eq!((origin.tid, origin.uid), (0, NO_UID));
    assert_eq!(bed.counter(Counter::Refused), 3);
    assert_eq!(bed.counter(Counter::First), 1);
    assert_eq!(bed.counter(Counter::Repeated), 2);
    assert_eq!(bed.maps().hits(key.rule).unwrap().packets, 3);
}

#[test]
fn frames_without_ip_are_recorded_by_their_ethertype() {
    let mut bed = Bed::new();
    bed.judge(&ethernet(EtherType(0x88cc), &[0; 60]));
    let [event] = bed.events()[..] else { panic!() };
    assert_eq!(event.key.protocol, NOT_IP | 0x88cc);
    assert_eq!(event.key.rule, FRAME_KIND);
    bed.judge(&arp(1, GUEST_MAC, [192, 168, 122, 50], [10, 50, 0, 1]));
    let [event] = bed.events()[..] else { panic!() };
    assert_eq!(event.key.protocol, NOT_IP | 0x0806);
    assert_eq!(event.key.address, halves("10.50.0.1"));
    assert_eq!(event.repeats.origin.source, halves(GUEST));
    let spoofed = with_macs(to("203.0.113.5").udp(1, 2), HOST_MAC, HOST_MAC);
    bed.judge(&spoofed);
    let [event] = bed.events()[..] else { panic!() };
    assert_eq!(
        (event.key.rule, event.key.protocol),
        (SPOOFED_MAC, NOT_IP | 0x0800)
    );
}

#[test]
fn a_monitored_policy_lets_through_and_records() {
    let mut bed = Bed::with(&[], true, 0);
    let frames = [
        to("192.168.122.1").tcp(4000, 22, Flags::Syn, &[]),
        to("192.168.122.1").udp(4000, 22),
        with_macs(to("203.0.113.5").udp(1, 2), HOST_MAC, HOST_MAC),
        ethernet(EtherType(0x88cc), &[0; 60]),
    ];
    for frame in &frames {
        let run = bed.judge(frame);
        assert!(run.goes_on());
        assert_eq!(run.frame, *frame);
    }
    let events = bed.events();
    assert_eq!(events.len(), frames.len());
    assert!(events.iter().all(|event| event.key.monitored == 1));
    assert_eq!(bed.counter(Counter::Monitored), 4);
    assert_eq!(bed.counter(Counter::Refused), 0);
    // What a rule could allow is kept for suggestions.
    let mut sighted: Vec<_> = bed
        .sightings()
        .iter()
        .map(|(seen, _)| seen.protocol)
        .collect();
    sighted.sort_unstable();
    assert_eq!(sighted, [6, 17]);
}

#[test]
fn frames_are_counted_by_outcome_and_protocol() {
    let mut bed = Bed::new();
    let refused = to("192.168.122.1").udp(4000, 22);
    assert_ne!(bed.judge(&refused).value, NEXT);
    for flags in [Flags::Syn, Flags::Ack, Flags::Ack] {
        let sent = to("203.0.113.5").tcp(4000, 22, flags, &[]);
        assert_eq!(bed.judge(&sent).value, NEXT);
    }
    assert_eq!(
        bed.judge(&ethernet(EtherType(0x88cc), &[0; 60])).value,
        DROP
    );
    bed.note(&to("203.0.113.5").udp(1, 2));
    let tally = |outcome, class| {
        let values = bed
            .maps()
            .tallies
            .get(&qfence_common::tally::tally_index(outcome, class), 0);
        values.unwrap().iter().fold((0, 0, 0), |sum, each| {
            (
                sum.0 + each.judged,
                sum.1 + each.unjudged,
                sum.2 + each.bytes,
            )
        })
    };
    let length = |frame: &[u8]| u64::try_from(frame.len() - ETHERNET).unwrap();
    assert_eq!(
        tally(Outcome::Refused, Class::Udp),
        (1, 0, length(&refused))
    );
    // A segment that continues a connection is judged, but counts as no decision.
    assert_eq!(tally(Outcome::Sent, Class::Tcp), (1, 2, 3 * 40));
    assert_eq!(tally(Outcome::Refused, Class::Other), (1, 0, 60));
    assert_eq!(tally(Outcome::Received, Class::Udp).1, 1);
    assert_eq!(bed.maps().verdicts(Action::Deny, Class::Udp).unwrap(), 1);
}

#[test]
fn what_is_let_through_is_logged_by_destination() {
    let mut bed = Bed::of(DEVICE, &[], false, 0, LOGS);
    for flags in [Flags::Syn, Flags::Ack] {
        let sent = to("203.0.113.5").tcp(4000, 22, flags, &[]);
        assert!(bed.judge(&sent).goes_on());
    }
    bed.note(&between("203.0.113.5", GUEST).tcp(22, 4000, Flags::SynAck, &[]));
    // It continues a connection to the guest, goes on by no rule, or is refused.
    bed.judge(&to("203.0.113.6").tcp(4000, 22, Flags::Ack, &[]));
    bed.judge(&to("ff02::2").icmp(255, 133, 0, &[0; 4]));
    bed.judge(&to("192.168.122.1").udp(4000, 22));
    let flows = bed.maps().flows.iter().map(Result::unwrap);
    let flows: Vec<_> = flows.collect();
    let [(key, flow)] = flows[..] else {
        panic!("{flows:?}")
    };
    assert_eq!(
        (key.to.address, key.to.port, key.to.protocol),
        (halves("203.0.113.5"), 22, 6)
    );
    assert_eq!((flow.sent_packets, flow.sent_bytes), (2, 80));
    assert_eq!((flow.received_packets, flow.received_bytes), (1, 40));
}

/// A connection goes on after its destination was forgotten. One that the guest has accepted looks the same, and is not
/// counted.
#[test]
fn a_destination_that_was_forgotten_is_logged_again_when_its_connection_goes_on() {
    let mut bed = Bed::of(DEVICE, &[], false, 0, LOGS);
    bed.maps_mut().begin_flows().unwrap();
    let send = |bed: &mut Bed, address: &str, flags: &[Flags]| {
        for flags in flags {
            let sent = to(address).tcp(4000, 22, *flags, &[]);
            assert!(bed.judge(&sent).goes_on());
        }
    };
    let logged = |bed: &Bed| -> Vec<_> {
        let flows = bed.maps().flows().unwrap().unwrap();
        let logged = flows.into_iter().filter(|(key, _)| *key != OTHERS);
        logged.collect()
    };
    send(&mut bed, "203.0.113.5", &[Flags::Syn, Flags::Ack]);
    let [(key, flow)] = logged(&bed)[..] else {
        panic!()
    };
    assert_eq!(flow.sent_packets, 2);
    assert_eq!(bed.maps().forgotten().unwrap(), 0);
    bed.maps_mut().forget_flow(&key).unwrap();
    assert_eq!(bed.maps().forgotten().unwrap(), 1);
    assert_eq!(logged(&bed), []);
    // What arrives first has no rule to make an entry with.
    bed.note(&between("203.0.113.5", GUEST).tcp(22, 4000, Flags::Ack, &[]));
    let others = bed.maps().flows.get(&OTHERS, 0).unwrap();
    assert_eq!((others.received_packets, others.sent_packets), (1, 0));
    send(&mut bed, "203.0.113.5", &[Flags::Ack]);
    send(&mut bed, "203.0.113.6", &[Flags::Ack]);
    bed.note(&between("203.0.113.6", GUEST).tcp(22, 4000, Flags::Ack, &[]));
    bed.note(&between("203.0.113.5", GUEST).tcp(22, 4000, Flags::Ack, &[]));
    let [(again, flow)] = logged(&bed)[..] else {
        panic!()
    };
    assert_eq!(again, key);
    assert_eq!((flow.sent_packets, flow.received_packets), (1, 1));
    let others = bed.maps().flows.get(&OTHERS, 0).unwrap();
    assert_eq!((others.received_packets, others.sent_packets), (1, 0));
}
