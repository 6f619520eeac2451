//! Answers of guests to what the host began.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, unshare};
use qfence_common::frame::AWAITED_FOR_NS;
use socket2::{Domain, Socket, Type};

use super::{
    bed::{Bed, DROP, REDIRECT},
    build::{Flags, GUEST, between, extended, fragment},
};

/// Runs a test in a network namespace of its own, in which the host's and the guest's addresses are those of loopback.
fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        for arguments in [
            "link set lo up",
            "address add 192.168.122.1/32 dev lo",
            "address add 192.168.122.50/32 dev lo",
            "-6 address add fd00:122::1/128 dev lo nodad",
            "-6 address add fd00:122::50/128 dev lo nodad",
        ] {
            let mut ip = Command::new("ip");
            let status = ip.args(arguments.split(' ')).status().unwrap();
            assert!(status.success(), "ip {arguments}");
        }
        test();
    });
    thread.join().unwrap();
}

const PAIRS: [(&str, &str); 2] = [
    ("192.168.122.1", "192.168.122.50"),
    ("fd00:122::1", "fd00:122::50"),
];

/// Opens a connection from one address to a service at another, and returns both ends.
fn connect(from: &str, to: &TcpListener) -> (TcpStream, TcpStream) {
    let socket = Socket::new(Domain::for_address(at(from, 0)), Type::STREAM, None).unwrap();
    socket.bind(&at(from, 0).into()).unwrap();
    socket.connect(&to.local_addr().unwrap().into()).unwrap();
    (socket.into(), to.accept().unwrap().0)
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn a_connection_that_the_host_opened_goes_on() {
    in_own_namespace(|| {
        for (host, guest) in PAIRS {
            let mut bed = Bed::new();
            let service = TcpListener::bind(at(guest, 0)).unwrap();
            let (opened, _other) = connect(host, &service);
            let port = service.local_addr().unwrap().port();
            let mine = opened.local_addr().unwrap().port();
            let segment = |flags| between(guest, host).tcp(port, mine, flags, &[]);
            for flags in [Flags::Ack, Flags::SynAck, Flags::Rst] {
                assert!(bed.judge(&segment(flags)).goes_on(), "{flags:?}");
            }
            assert_eq!(bed.judge(&segment(Flags::Syn)).value, REDIRECT);
            let behind = extended_if_v6(&segment(Flags::Ack));
            assert!(bed.judge(&behind).goes_on());
            // Another port of the guest, and of the host.
            for (from, to) in [(port ^ 1, mine), (port, mine ^ 1)] {
                let other = between(guest, host).tcp(from, to, Flags::Ack, &[]);
                assert_eq!(bed.judge(&other).value, REDIRECT);
                let other = between(guest, host).tcp(from, to, Flags::Rst, &[]);
                assert_eq!(bed.judge(&other).value, DROP);
            }
            // Later fragments have no ports, whatever their bytes are.
            if !host.contains(':') {
                let later = fragment(segment(Flags::Ack), 1, false);
                assert_eq!(bed.judge(&later).value, DROP);
            }
            drop(opened);
        }
    });
}

fn extended_if_v6(frame: &[u8]) -> Vec<u8> {
    if frame[12] == 0x86 {
        extended(frame, 60, &[0, 0, 1, 4, 0, 0, 0, 0])
    } else {
        frame.to_vec()
    }
}

/// It was opened while a rule allowed it. With such a rule in force it goes on; when the rule is gone it is reset.
#[test]
fn a_connection_that_the_guest_opened_is_judged_by_the_policy() {
    in_own_namespace(|| {
        for (host, guest) in PAIRS {
            let service = TcpListener::bind(at(host, 0)).unwrap();
            let (opened, _accepted) = connect(guest, &service);
            let port = service.local_addr().unwrap().port();
            let mine = opened.local_addr().unwrap().port();
            let segment = |flags| between(guest, host).tcp(mine, port, flags, &[]);
            let address = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            let mut bed = Bed::with(&[&format!("allow tcp:{address}:{port}")], false, 0);
            assert!(bed.judge(&segment(Flags::Ack)).goes_on());
            let mut bed = Bed::new();
            assert_eq!(bed.judge(&segment(Flags::Ack)).value, REDIRECT);
            assert_eq!(bed.judge(&segment(Flags::Syn)).value, REDIRECT);
            // The guest answers the reset of another host with a reset, and the host is to learn of it.
            assert!(bed.judge(&segment(Flags::Rst)).goes_on());
            let other = between(guest, host).tcp(mine ^ 1, port, Flags::Rst, &[]);
            assert_eq!(bed.judge(&other).value, DROP);
        }
    });
}

#[test]
fn udp_and_pings_of_the_host_are_answered() {
    let mut bed = Bed::new();
    for (host, guest) in PAIRS {
        let answer = between(guest, host).udp(5000, 40000);
        assert_eq!(bed.judge(&answer).value, REDIRECT);
        bed.note(&between(host, guest).udp(40000, 5000));
        assert!(bed.judge(&answer).goes_on());
        // From another port, to another port, from another address.
        assert!(!bed.judge(&between(guest, host).udp(5001, 40000)).goes_on());
        assert!(!bed.judge(&between(guest, host).udp(5000, 40001)).goes_on());
        let other = if host.contains(':') {
            "fd00:122::51"
        } else {
            "192.168.122.51"
        };
        assert!(!bed.judge(&between(other, host).udp(5000, 40000)).goes_on());
        assert!(
            !bed.judge(&between(guest, host).tcp(5000, 40000, Flags::Syn, &[]))
                .goes_on()
        );

        let (request, reply) = if host.contains(':') {
            (128, 129)
        } else {
            (8, 0)
        };
        let identified = |id: u8| [0, id, 0, 1, 9, 9, 9, 9];
        let pong = between(guest, host).icmp(64, reply, 0, &identified(7));
        assert_eq!(bed.judge(&pong).value, DROP);
        bed.note(&between(host, guest).icmp(64, request, 0, &identified(7)));
        assert!(bed.judge(&pong).goes_on());
        let other = between(guest, host).icmp(64, reply, 0, &identified(8));
        assert!(!bed.judge(&other).goes_on());
        let ping = between(guest, host).icmp(64, request, 0, &identified(7));
        assert!(!bed.judge(&ping).goes_on());
    }
}

#[test]
fn only_the_host_makes_notes_and_not_by_its_answers_to_many() {
    let mut bed = Bed::new();
    // Of a neighbour, to many, and of the guest itself.
    bed.note(&between("192.168.122.9", GUEST).udp(40000, 5000));
    bed.note(&between("192.168.122.1", "224.0.0.251").udp(5353, 5353));
    bed.judge(&between(GUEST, "192.168.122.1").udp(5000, 40000));
    for frame in [
        between(GUEST, "192.168.122.1").udp(5000, 40000),
        between(GUEST, "192.168.122.1").udp(5353, 5353),
    ] {
        assert!(!bed.judge(&frame).goes_on());
    }
    // A segment of TCP and an echo note nothing.
    bed.note(&between("192.168.122.1", GUEST).tcp(40000, 5000, Flags::Syn, &[]));
    bed.note(&between("192.168.122.1", GUEST).icmp(64, 0, 0, &[0, 7, 0, 1, 0, 0, 0, 0]));
    assert!(
        !bed.judge(&between(GUEST, "192.168.122.1").tcp(5000, 40000, Flags::Ack, &[]))
            .goes_on()
    );
    let pong = between(GUEST, "192.168.122.1").icmp(64, 0, 0, &[0, 7, 0, 1, 0, 0, 0, 0]);
    assert!(!bed.judge(&pong).goes_on());
}

#[test]
fn an_answer_is_awaited_for_five_minutes_and_under_one_policy() {
    let mut bed = Bed::new();
    let (sent, answer) = (
        between("192.168.122.1", GUEST).udp(40000, 5000),
        between(GUEST, "192.168.122.1").udp(5000, 40000),
    );
    bed.note(&sent);
    assert!(bed.judge(&answer).goes_on());
    bed.age_notes(AWAITED_FOR_NS - 60_000_000_000);
    assert!(bed.judge(&answer).goes_on());
    bed.age_notes(60_000_000_000);
    assert!(!bed.judge(&answer).goes_on());
    bed.note(&sent);
    assert!(bed.judge(&answer).goes_on());
    bed.change_at(u64::MAX);
    assert!(!bed.judge(&answer).goes_on());
    bed.change_at(1);
    assert!(bed.judge(&answer).goes_on());
}
