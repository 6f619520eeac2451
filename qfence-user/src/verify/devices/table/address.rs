//! The host by each of its addresses, and by those that name many.

use super::super::row::{
    Fenced::{Refused, Through},
    Layer, Open, Row,
    Said::{Either, Nothing, Prohibited, Reset},
    address, group_mac, row, to, to_host,
};
use crate::{
    probe::frame::{
        answer::Answer,
        wire::{self, BROADCAST},
    },
    verify::devices::scene::{
        GATEWAY_LOCAL, GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, HOST, Link, NEIGHBOUR_MAC,
        NEIGHBOUR_V4, NEIGHBOUR_V6, PORT, SERVER_V4, SERVER_V6,
    },
};

const GROUPS: [&str; 8] = [
    "224.0.0.251",
    "224.0.0.252",
    "239.255.255.250",
    "224.0.0.1",
    "ff02::1",
    "ff02::2",
    "ff02::fb",
    "ff02::1:2",
];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = unicast();
    rows.extend(many());
    rows.extend(unusual());
    rows.extend(elsewhere());
    rows
}

fn unicast() -> Vec<Row> {
    let mut rows = Vec::new();
    for host in HOST.into_iter().chain([GATEWAY_LOCAL]) {
        rows.push(row(
            format!("tcp to {host}"),
            Open::Answered(Answer::Accepted),
            Refused(Reset),
            move |by| to_host(&by.syn(host, PORT)),
        ));
        rows.push(row(
            format!("udp to {host}"),
            Open::Answered(Answer::Datagram),
            Refused(Prohibited),
            move |by| to_host(&by.udp(host, PORT)),
        ));
        rows.push(row(
            format!("ping to {host}"),
            Open::Answered(Answer::Echo),
            Refused(Prohibited),
            move |by| to_host(&by.ping(host)),
        ));
        for protocol in [4, 41, 47, 50, 253] {
            rows.push(row(
                format!("protocol {protocol} to {host}"),
                Open::Delivered,
                Refused(Prohibited),
                move |by| to_host(&wire::ip(by.source(host), host, protocol, &[0; 24])),
            ));
        }
    }
    rows
}

fn many() -> Vec<Row> {
    let mut rows = Vec::new();
    for group in GROUPS {
        let group = address(group);
        rows.push(row(
            format!("udp to {group}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| vec![to(group_mac(group), &by.udp(group, PORT))],
        ));
    }
    for text in ["224.0.0.1", "ff02::1"] {
        let group = address(text);
        rows.push(row(
            format!("ping to {group}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| vec![to(group_mac(group), &by.ping(group))],
        ));
    }
    rows.push(row(
        "udp to ff02::1, in a frame to the host alone",
        Open::Delivered,
        Refused(Nothing),
        |by| to_host(&by.udp(address("ff02::1"), PORT)),
    ));
    for broadcast in ["255.255.255.255", "192.168.122.255", "10.50.0.255"] {
        let broadcast = address(broadcast);
        rows.push(row(
            format!("udp to {broadcast}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| vec![to(BROADCAST, &by.udp(broadcast, PORT))],
        ));
        rows.push(row(
            format!("udp to {broadcast}, in a frame to the host alone"),
            Open::Delivered,
            Refused(Nothing),
            move |by| to_host(&by.udp(broadcast, PORT)),
        ));
    }
    rows.push(row(
        "udp to the routers of the subnet",
        Open::Delivered,
        Refused(Either),
        |by| to_host(&by.udp(address("fd00:122::"), PORT)),
    ));
    for (name, mac) in [
        ("broadcast", BROADCAST),
        ("multicast", [1, 0, 0x5e, 0, 0, 1]),
    ] {
        rows.push(row(
            format!("udp to the host in a {name} frame"),
            Open::Delivered,
            Refused(Nothing),
            move |by| vec![to(mac, &by.udp(GATEWAY_V4, PORT))],
        ));
    }
    rows
}

fn unusual() -> Vec<Row> {
    let mut rows = vec![
        row("udp to 0.0.0.0", Open::Sent, Refused(Either), |by| {
            to_host(&by.udp(address("0.0.0.0"), PORT))
        }),
        row("udp to 127.0.0.1", Open::Sent, Refused(Either), |by| {
            to_host(&by.udp(address("127.0.0.1"), PORT))
        }),
        row(
            "udp to 127.0.0.1, which the device routes",
            Open::Delivered,
            Refused(Either),
            |by| to_host(&by.udp(address("127.0.0.1"), PORT)),
        )
        .with("ipv4/conf/all/route_localnet", "1", "0"),
        row(
            "tcp to 127.0.0.1, which the device routes",
            Open::Delivered,
            Refused(Either),
            |by| to_host(&by.syn(address("127.0.0.1"), PORT)),
        )
        .with("ipv4/conf/all/route_localnet", "1", "0"),
        row("udp to ::1", Open::Sent, Refused(Either), |by| {
            to_host(&by.udp(address("::1"), PORT))
        }),
        row("udp to ff01::1", Open::Sent, Refused(Nothing), |by| {
            let group = address("ff01::1");
            vec![to(group_mac(group), &by.udp(group, PORT))]
        }),
        row(
            "udp to the host as a mapped address",
            Open::Internet,
            Refused(Either),
            |by| to_host(&by.udp(address("::ffff:192.168.122.1"), PORT)),
        )
        .held_by(Layer::First),
        row(
            "udp to an address that the host just got",
            Open::Delivered,
            Refused(Either),
            |by| to_host(&by.udp(address("203.0.113.77"), PORT)),
        )
        // The first layer is told of it within a moment; here it may not know it yet.
        .held_by(Layer::Second)
        .after_address("203.0.113.77/32"),
    ];
    rows.push(
        row(
            "udp to the host, in a frame to the neighbour",
            Open::Neighbour,
            Refused(Prohibited),
            |by| vec![to(NEIGHBOUR_MAC, &by.udp(GATEWAY_V4, PORT))],
        )
        .only(Link::Bridged)
        .held_by(Layer::First),
    );
    rows
}

/// What is not the host.
fn elsewhere() -> Vec<Row> {
    let mut rows = Vec::new();
    for server in [SERVER_V4, SERVER_V6] {
        rows.push(row(
            format!("tcp to {server}"),
            Open::Answered(Answer::Accepted),
            Through,
            move |by| to_host(&by.syn(server, PORT)),
        ));
        rows.push(row(
            format!("udp to {server}"),
            Open::Answered(Answer::Datagram),
            Through,
            move |by| to_host(&by.udp(server, PORT)),
        ));
        rows.push(row(
            format!("ping to {server}"),
            Open::Answered(Answer::Echo),
            Through,
            move |by| to_host(&by.ping(server)),
        ));
    }
    for neighbour in [NEIGHBOUR_V4, NEIGHBOUR_V6] {
        rows.push(
            row(
                format!("ping to {neighbour}"),
                Open::Answered(Answer::Echo),
                Through,
                move |by| vec![to(NEIGHBOUR_MAC, &by.ping(neighbour))],
            )
            .only(Link::Bridged),
        );
    }
    for (name, gateway, server) in [
        ("IPv4", GATEWAY_V4, SERVER_V4),
        ("IPv6", GATEWAY_V6, SERVER_V6),
    ] {
        // Nothing of it comes to LOCAL_IN; the answer is the gateway's own.
        rows.push(row(
            format!("a packet by {name} whose hops end at the gateway"),
            Open::Answered(Answer::Error),
            Through,
            move |by| {
                let mut packet = by.udp(server, PORT);
                let at = if gateway.is_ipv4() { 8 } else { 7 };
                packet[at] = 1;
                if gateway.is_ipv4() {
                    packet[10..12].fill(0);
                    let sum = wire::checksum(&[&packet[..20]]);
                    packet[10..12].copy_from_slice(&sum.to_be_bytes());
                }
                vec![to(GATEWAY_MAC, &packet)]
            },
        ));
    }
    rows
}
