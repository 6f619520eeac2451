//! Frames that are no IP, VLAN tags, and a tunnel.

use super::{
    super::row::{
        Fenced::Refused,
        Layer, Open, Row,
        Said::{Nothing, Prohibited},
        address, row, to, to_host,
    },
    discovery::who_has,
};
use crate::{
    probe::frame::{
        answer::Answer,
        wire::{self, BROADCAST, Frame},
    },
    verify::devices::scene::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, Kind, Link, NEIGHBOUR_MAC,
        OTHER_V4, PORT, TUNNEL, TUNNEL_MAC, TUNNEL_V4,
    },
};

/// The ethertype of VLAN tags, and that of tags around tags.
const Q: u16 = 0x8100;
const AD: u16 = 0x88a8;

pub(super) fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = kinds(kind);
    rows.extend(tags());
    rows.push(row(
        "the tunnel of the host",
        Open::Delivered,
        Refused(Prohibited),
        |by| to_host(&tunnelled(by.port, GATEWAY_V4.to_string().as_str())),
    ));
    rows
}

/// A datagram to the tunnel's end, within one to `outer`.
pub(super) fn tunnelled(port: u16, outer: &str) -> Vec<u8> {
    let inner = wire::packet(
        GUEST_MAC,
        TUNNEL_MAC,
        &wire::udp((address("10.77.0.2"), port), (TUNNEL_V4, PORT), b"within"),
    );
    let [_, a, b, c] = TUNNEL.to_be_bytes();
    let payload = [&[8, 0, 0, 0, a, b, c, 0][..], &inner].concat();
    wire::udp((GUEST_V4, port), (address(outer), 4789), &payload)
}

fn kinds(scene: Kind) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, ethertype) in [
        ("LLDP", 0x88cc),
        ("EAPOL", 0x888e),
        ("MPLS", 0x8847),
        ("a session of PPPoE", 0x8864),
        ("an experiment", 0x88b5),
        ("loopback of Ethernet", 0x9000),
    ] {
        for (to, mac) in [("the host", GATEWAY_MAC), ("all", BROADCAST)] {
            rows.push(
                row(
                    format!("{name} to {to}"),
                    Open::Others,
                    Refused(Nothing),
                    move |_| vec![wire::ethernet(GUEST_MAC, mac, ethertype, &[0x45; 46])],
                )
                .held_by(Layer::First),
            );
        }
    }
    for (name, last, ethertype) in [("LLDP", 0x0e, 0x88cc), ("EAPOL", 3, 0x888e)] {
        let group = [1, 0x80, 0xc2, 0, 0, last];
        rows.push(
            row(
                format!("{name} to its group"),
                Open::Others,
                Refused(Nothing),
                move |_| vec![wire::ethernet(GUEST_MAC, group, ethertype, &[2; 46])],
            )
            .held_by(Layer::First),
        );
    }
    rows.push(
        row(
            "the spanning tree's protocol",
            Open::Others,
            Refused(Nothing),
            |_| {
                let unit = [&[0x42, 0x42, 3][..], &[0; 35]].concat();
                vec![wire::llc(GUEST_MAC, [1, 0x80, 0xc2, 0, 0, 0], &unit)]
            },
        )
        .held_by(Layer::First),
    );
    rows.push(
        row("IP in LLC", Open::Others, Refused(Nothing), |by| {
            let packet = by.udp(GATEWAY_V4, PORT);
            let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &packet].concat();
            vec![wire::llc(GUEST_MAC, GATEWAY_MAC, &snap)]
        })
        .held_by(Layer::First),
    );
    if scene.link == Link::Bridged {
        rows.push(
            row(
                "an experiment to the neighbour",
                Open::Neighbour,
                Refused(Nothing),
                |_| {
                    vec![wire::ethernet(
                        GUEST_MAC,
                        NEIGHBOUR_MAC,
                        0x88b5,
                        &[0x45; 46],
                    )]
                },
            )
            .held_by(Layer::First),
        );
    }
    rows
}

fn tags() -> Vec<Row> {
    let mut rows = Vec::new();
    let datagram = |port| {
        to(
            GATEWAY_MAC,
            &wire::udp((GUEST_V4, port), (GATEWAY_V4, PORT), b"x"),
        )
    };
    rows.push(row(
        "a datagram in VLAN 5",
        Open::Sent,
        Refused(Nothing),
        move |by| vec![wire::tagged(&datagram(by.port), &[(Q, 5)])],
    ));
    for (name, tags) in [
        ("a tag for no VLAN", &[(Q, 0)][..]),
        ("an outer tag for no VLAN", &[(AD, 0)]),
        ("a tag with a priority", &[(Q, 0xe000)]),
    ] {
        rows.push(row(
            format!("a datagram with {name}"),
            Open::Answered(Answer::Datagram),
            Refused(Prohibited),
            move |by| vec![wire::tagged(&datagram(by.port), tags)],
        ));
        rows.push(row(
            format!("a datagram by IPv6 with {name}"),
            Open::Answered(Answer::Datagram),
            Refused(Prohibited),
            move |by| {
                let frame: Frame = to(GATEWAY_MAC, &by.udp(GATEWAY_V6, PORT));
                vec![wire::tagged(&frame, tags)]
            },
        ));
        rows.push(
            row(
                format!("arp for another address with {name}"),
                Open::Answered(Answer::Arp),
                Refused(Nothing),
                move |_| vec![wire::tagged(&who_has(GUEST_V4, OTHER_V4), tags)],
            )
            .held_by(Layer::First),
        );
    }
    for (name, tags) in [
        ("two tags for no VLAN", &[(Q, 0), (Q, 0)][..]),
        ("two kinds of tags for no VLAN", &[(AD, 0), (Q, 0)]),
        ("three tags for no VLAN", &[(Q, 0), (Q, 0), (Q, 0)]),
    ] {
        rows.push(row(
            format!("a datagram with {name}"),
            Open::Delivered,
            Refused(Nothing),
            move |by| vec![wire::tagged(&datagram(by.port), tags)],
        ));
        rows.push(
            row(
                format!("arp for another address with {name}"),
                Open::Answered(Answer::Arp),
                Refused(Nothing),
                move |_| vec![wire::tagged(&who_has(GUEST_V4, OTHER_V4), tags)],
            )
            .held_by(Layer::First),
        );
    }
    rows
}
