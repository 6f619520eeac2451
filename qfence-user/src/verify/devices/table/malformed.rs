//! Fragments, options, extension headers, segments and errors without a connection, false senders.

use std::net::IpAddr;

use super::{
    super::row::{
        Fenced::{Refused, Through},
        Layer, Open, Row,
        Said::{Either, Nothing, Prohibited, Reset},
        address, row, to_host,
    },
    discovery::v6,
};
use crate::{
    probe::frame::{
        answer::Answer,
        wire::{self, Flags, SYN},
    },
    verify::devices::scene::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, Link, NEIGHBOUR_MAC,
        NEIGHBOUR_V4, OTHER_V4, OTHER_V6, PORT, SERVER_V4, SERVER_V6,
    },
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = fragments();
    rows.extend(headers());
    rows.extend(routes());
    rows.extend(segments());
    rows.extend(errors());
    rows.extend(senders());
    rows
}

fn fragments() -> Vec<Row> {
    let mut rows = Vec::new();
    for host in [GATEWAY_V4, OTHER_V4, GATEWAY_V6, OTHER_V6] {
        let pieces = move |port, first| {
            let source = if host.is_ipv4() { GUEST_V4 } else { GUEST_V6 };
            let whole = wire::udp((source, port), (host, PORT), &[7; 120]);
            wire::fragments(&whole, first)
        };
        rows.push(row(
            format!("fragments to {host}"),
            Open::Answered(Answer::Datagram),
            Refused(Either),
            move |by| {
                pieces(by.port, 64)
                    .iter()
                    .flat_map(|piece| to_host(piece))
                    .collect()
            },
        ));
        rows.push(row(
            format!("fragments to {host}, the last first"),
            Open::Answered(Answer::Datagram),
            Refused(Either),
            move |by| {
                let pieces = pieces(by.port, 64);
                pieces
                    .iter()
                    .rev()
                    .flat_map(|piece| to_host(piece))
                    .collect()
            },
        ));
        rows.push(row(
            format!("a first fragment of eight bytes to {host}"),
            Open::Answered(Answer::Datagram),
            Refused(Either),
            move |by| {
                pieces(by.port, 8)
                    .iter()
                    .flat_map(|piece| to_host(piece))
                    .collect()
            },
        ));
        rows.push(row(
            format!("a later fragment alone to {host}"),
            Open::Sent,
            Refused(Nothing),
            move |by| to_host(&pieces(by.port, 64)[1]),
        ));
        rows.push(row(
            format!("the only fragment to {host}"),
            Open::Answered(Answer::Datagram),
            Refused(Either),
            move |by| to_host(&pieces(by.port, 1000)[0]),
        ));
    }
    rows
}

/// An IPv6 packet with extension headers before its payload: pairs of a header's number and how many of it.
fn extended(packet: &[u8], headers: &[(u8, usize)]) -> Vec<u8> {
    let mut payload = packet[40..].to_vec();
    let mut next = packet[6];
    let all = headers
        .iter()
        .flat_map(|(header, count)| std::iter::repeat_n(*header, *count));
    for header in all.collect::<Vec<_>>().into_iter().rev() {
        payload.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
        next = header;
    }
    let address = |at: usize| -> std::net::Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&packet[at..at + 16]);
        octets.into()
    };
    wire::v6(address(8), address(24), next, 64, &payload)
}

fn headers() -> Vec<Row> {
    const HOP_BY_HOP: u8 = 0;
    const DESTINATION: u8 = 60;
    let mut rows = Vec::new();
    for (name, headers) in [
        ("hop-by-hop options", &[(HOP_BY_HOP, 1)][..]),
        ("destination options", &[(DESTINATION, 1)]),
        (
            "both kinds of options",
            &[(HOP_BY_HOP, 1), (DESTINATION, 1)],
        ),
        ("ten headers of options", &[(DESTINATION, 10)]),
    ] {
        // More than a fence reads.
        let is_read = headers.iter().map(|(_, count)| count).sum::<usize>() <= 8;
        for host in [GATEWAY_V6, OTHER_V6] {
            rows.push(row(
                format!("{name} to {host}"),
                Open::Delivered,
                Refused(if is_read { Prohibited } else { Nothing }),
                move |by| to_host(&extended(&by.udp(host, PORT), headers)),
            ));
            rows.push(row(
                format!("a segment behind {name} to {host}"),
                Open::Delivered,
                Refused(if is_read { Reset } else { Nothing }),
                move |by| to_host(&extended(&by.syn(host, PORT), headers)),
            ));
        }
    }
    rows.push(row(
        "hop-by-hop options to the internet",
        Open::Internet,
        Through,
        |by| to_host(&extended(&by.udp(SERVER_V6, PORT), &[(HOP_BY_HOP, 1)])),
    ));
    for host in [GATEWAY_V4, OTHER_V4] {
        let with_options = |packet: &[u8], host: IpAddr| {
            let (IpAddr::V4(source), IpAddr::V4(host)) = (GUEST_V4, host) else {
                return Vec::new();
            };
            to_host(&wire::v4(
                source,
                host,
                packet[9],
                64,
                &[1; 12],
                &packet[20..],
            ))
        };
        rows.push(row(
            format!("options of IPv4 to {host}"),
            Open::Answered(Answer::Datagram),
            Refused(Prohibited),
            move |by| with_options(&by.udp(host, PORT), host),
        ));
        rows.push(row(
            format!("a segment behind options of IPv4 to {host}"),
            Open::Answered(Answer::Accepted),
            Refused(Reset),
            move |by| with_options(&by.syn(host, PORT), host),
        ));
    }
    rows
}

/// Source routes.
fn routes() -> Vec<Row> {
    let routing = |kind: u8, to: IpAddr, by: IpAddr, last: IpAddr, port: u16| {
        let datagram = wire::udp((GUEST_V6, port), (to, PORT), b"routed");
        let mut payload = vec![17, 2, kind, 1, 0, 0, 0, 0];
        payload.extend(v6(last).octets());
        payload.extend(&datagram[40..]);
        wire::v6(v6(GUEST_V6), v6(by), 43, 64, &payload)
    };
    vec![
        row(
            "a route by the internet back to the host, by IPv6",
            Open::Internet,
            Through,
            move |by| to_host(&routing(0, GATEWAY_V6, SERVER_V6, GATEWAY_V6, by.port)),
        ),
        row(
            "a route by segments whose first is the host",
            Open::Sent,
            Refused(Prohibited),
            move |by| to_host(&routing(4, SERVER_V6, GATEWAY_V6, SERVER_V6, by.port)),
        ),
        row(
            "a loose source route by the host",
            Open::Internet,
            Refused(Prohibited),
            |by| {
                let IpAddr::V4(server) = SERVER_V4 else {
                    return Vec::new();
                };
                let mut options = vec![131, 7, 4];
                options.extend(server.octets());
                options.push(0);
                let datagram = by.udp(GATEWAY_V4, PORT);
                let (IpAddr::V4(source), IpAddr::V4(host)) = (GUEST_V4, GATEWAY_V4) else {
                    return Vec::new();
                };
                to_host(&wire::v4(source, host, 17, 64, &options, &datagram[20..]))
            },
        )
        .held_by(Layer::First)
        .with("ipv4/conf/all/accept_source_route", "1", "0"),
    ]
}

fn segments() -> Vec<Row> {
    let flags = |syn, ack, rst| Flags { syn, ack, rst };
    let mut rows = Vec::new();
    for (name, flags, said) in [
        ("a second segment", flags(true, true, false), Reset),
        ("an acknowledgement", flags(false, true, false), Reset),
        ("a segment without flags", flags(false, false, false), Reset),
        ("a reset", flags(false, false, true), Nothing),
    ] {
        for host in [GATEWAY_V4, GATEWAY_V6, OTHER_V4] {
            rows.push(row(
                format!("{name} to {host}"),
                Open::Delivered,
                Refused(said),
                move |by| {
                    let from = (by.source(host), by.port);
                    to_host(&wire::tcp(from, (host, PORT), flags))
                },
            ));
        }
    }
    for host in [GATEWAY_V4, GATEWAY_V6] {
        rows.push(row(
            format!("a datagram from port 53 to {host}"),
            Open::Delivered,
            Refused(Prohibited),
            move |by| {
                let from = (by.source(host), 53);
                to_host(&wire::udp(from, (host, by.port), b"no answer"))
            },
        ));
    }
    rows
}

fn errors() -> Vec<Row> {
    let mut rows = Vec::new();
    let about = |host: IpAddr| {
        let source = if host.is_ipv4() { GUEST_V4 } else { GUEST_V6 };
        wire::udp((host, 4000), (source, 53), b"")
    };
    for (name, host, kind, code) in [
        ("unreachable", GATEWAY_V4, 3, 1),
        ("fragmentation needed", GATEWAY_V4, 3, 4),
        ("redirect", GATEWAY_V4, 5, 1),
        ("time exceeded", GATEWAY_V4, 11, 0),
        ("an echo that nobody asked for", GATEWAY_V4, 0, 0),
        ("a request for the time", GATEWAY_V4, 13, 0),
        ("unreachable", GATEWAY_V6, 1, 4),
        ("too big", GATEWAY_V6, 2, 0),
        ("time exceeded", GATEWAY_V6, 3, 0),
        ("an echo that nobody asked for", GATEWAY_V6, 129, 0),
    ] {
        rows.push(row(
            format!("{name} to {host}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| {
                let rest = [&[0, 0, 5, 0][..], &about(host)].concat();
                to_host(&wire::icmp(by.source(host), host, kind, code, &rest))
            },
        ));
    }
    rows
}

fn senders() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, source) in [("the internet", SERVER_V4), ("the neighbour", NEIGHBOUR_V4)] {
        rows.push(row(
            format!("a datagram in the name of {name}"),
            Open::Delivered,
            Refused(Prohibited),
            move |by| to_host(&wire::udp((source, by.port), (GATEWAY_V4, PORT), b"false")),
        ));
        rows.push(row(
            format!("a connection in the name of {name}"),
            Open::Delivered,
            Refused(Reset),
            move |by| to_host(&wire::tcp((source, by.port), (GATEWAY_V4, PORT), SYN)),
        ));
    }
    for (name, source) in [
        ("the host", GATEWAY_V4),
        ("another address of the host", OTHER_V4),
        ("loopback", address("127.0.0.1")),
        ("nobody", address("0.0.0.0")),
    ] {
        rows.push(row(
            format!("a datagram in the name of {name}"),
            Open::Sent,
            Refused(Either),
            move |by| to_host(&wire::udp((source, by.port), (GATEWAY_V4, PORT), b"false")),
        ));
    }
    for (name, mac) in [
        ("another", [2, 0, 0, 0, 0, 0x99]),
        ("the neighbour's", NEIGHBOUR_MAC),
    ] {
        // In a bridge the second layer sees neither the device nor the guest's address.
        for (link, layer) in [(Link::Routed, Layer::Both), (Link::Bridged, Layer::First)] {
            rows.push(
                row(
                    format!("a datagram from {name} MAC address"),
                    Open::Delivered,
                    Refused(Nothing),
                    move |by| vec![wire::packet(mac, GATEWAY_MAC, &by.udp(GATEWAY_V4, PORT))],
                )
                .only(link)
                .held_by(layer),
            );
        }
    }
    // A bridge drops such a frame by itself.
    for (link, open) in [(Link::Routed, Open::Delivered), (Link::Bridged, Open::Sent)] {
        let group = [1, 0, 0x5e, 0, 0, 1];
        rows.push(
            row(
                "a datagram from a group's MAC address",
                open,
                Refused(Nothing),
                move |by| vec![wire::packet(group, GATEWAY_MAC, &by.udp(GATEWAY_V4, PORT))],
            )
            .only(link),
        );
    }
    rows.push(
        row(
            "a datagram to the internet from another MAC address",
            Open::Internet,
            Refused(Nothing),
            |by| {
                let other = [GUEST_MAC[0], 0, 0, 0, 0, 0x99];
                vec![wire::packet(other, GATEWAY_MAC, &by.udp(SERVER_V4, PORT))]
            },
        )
        .held_by(Layer::First),
    );
    rows
}
