//! ARP, neighbour and router discovery, and memberships.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::row::{
    Fenced::{NotForTheHost, Refused, Through, Unanswered},
    Layer, Open, Row,
    Said::Nothing,
    address, group_mac, row, to, to_host,
};
use crate::{
    probe::frame::{
        answer::Answer,
        wire::{self, BROADCAST, Frame, Mac},
    },
    verify::devices::scene::{
        GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_LOCAL, GUEST_MAC, GUEST_V4, GUEST_V6, Link,
        NEIGHBOUR_V4, OTHER_V4, OTHER_V6, UPLINK_V4,
    },
};

const NOBODY: Mac = [0; 6];

pub(super) fn rows() -> Vec<Row> {
    let mut rows = arp();
    rows.extend(neighbours());
    rows.extend(routers());
    rows.extend(memberships());
    rows
}

fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => unreachable!("{v6} is no IPv4 address"),
    }
}

pub(super) fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(v6) => v6,
        IpAddr::V4(v4) => unreachable!("{v4} is no IPv6 address"),
    }
}

/// A question for an address, by a sender of this address.
pub(super) fn who_has(sender: IpAddr, target: IpAddr) -> Frame {
    let question = wire::arp(1, (GUEST_MAC, v4(sender)), (NOBODY, v4(target)));
    wire::ethernet(GUEST_MAC, BROADCAST, 0x0806, &question)
}

fn arp() -> Vec<Row> {
    let mut rows = vec![
        row(
            "arp for the gateway",
            Open::Answered(Answer::Arp),
            Through,
            |_| vec![who_has(GUEST_V4, GATEWAY_V4)],
        ),
        row(
            "arp for the gateway, in a frame to it alone",
            Open::Answered(Answer::Arp),
            Through,
            |_| {
                let mut frame = who_has(GUEST_V4, GATEWAY_V4);
                frame[..6].copy_from_slice(&GATEWAY_MAC);
                vec![frame]
            },
        ),
        row(
            "an answer by arp to the gateway",
            Open::Others,
            Through,
            |_| {
                let answer = wire::arp(2, (GUEST_MAC, v4(GUEST_V4)), (GATEWAY_MAC, v4(GATEWAY_V4)));
                vec![wire::ethernet(GUEST_MAC, GATEWAY_MAC, 0x0806, &answer)]
            },
        ),
        row("arp for the neighbour", Open::Neighbour, Through, |_| {
            vec![who_has(GUEST_V4, NEIGHBOUR_V4)]
        })
        .only(Link::Bridged),
        row(
            "arp for the guest's own address, before it has it",
            Open::Others,
            Through,
            |_| vec![who_has(address("0.0.0.0"), GUEST_V4)],
        ),
        row(
            "arp that announces the guest",
            Open::Others,
            Through,
            |_| vec![who_has(GUEST_V4, GUEST_V4)],
        ),
        row(
            "arp that claims the gateway's address",
            Open::Others,
            Refused(Nothing),
            |_| vec![who_has(GATEWAY_V4, GATEWAY_V4)],
        )
        .held_by(Layer::First),
        row(
            "an answer by arp that claims the gateway's address",
            Open::Others,
            Refused(Nothing),
            |_| {
                let claim = wire::arp(2, (GUEST_MAC, v4(GATEWAY_V4)), (BROADCAST, v4(GUEST_V4)));
                vec![wire::ethernet(GUEST_MAC, BROADCAST, 0x0806, &claim)]
            },
        )
        .held_by(Layer::First),
        row(
            "arp of another sender than the frame's",
            Open::Others,
            Refused(Nothing),
            |_| {
                let other = [2, 0, 0, 0, 0, 0x55];
                let question = wire::arp(1, (other, v4(GUEST_V4)), (NOBODY, v4(GATEWAY_V4)));
                vec![wire::ethernet(GUEST_MAC, BROADCAST, 0x0806, &question)]
            },
        )
        .held_by(Layer::First),
        row(
            "arp that is too short",
            Open::Others,
            Refused(Nothing),
            |_| {
                vec![wire::ethernet(
                    GUEST_MAC,
                    GATEWAY_MAC,
                    0x0806,
                    &[0, 1, 8, 0, 6, 4, 0, 1],
                )]
            },
        )
        .held_by(Layer::First),
    ];
    for other in [OTHER_V4, UPLINK_V4] {
        rows.push(
            row(
                format!("arp for {other}"),
                Open::Answered(Answer::Arp),
                Refused(Nothing),
                move |_| vec![who_has(GUEST_V4, other)],
            )
            .held_by(Layer::First),
        );
    }
    rows
}

/// A solicitation of a neighbour, with the sender's MAC address.
fn solicitation(source: Ipv6Addr, target: Ipv6Addr, hops: u8) -> Frame {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut rest = vec![0; 4];
    rest.extend(target.octets());
    rest.extend([1, 1]);
    rest.extend(GUEST_MAC);
    let packet = wire::discovery(source, group, hops, 135, &rest);
    to(group_mac(group.into()), &packet)
}

fn neighbours() -> Vec<Row> {
    vec![
        row(
            "solicitation of the gateway",
            Open::Answered(Answer::Advertisement),
            Through,
            |_| vec![solicitation(v6(GUEST_V6), v6(GATEWAY_V6), 255)],
        ),
        row(
            "solicitation of the gateway's link-local address",
            Open::Answered(Answer::Advertisement),
            Through,
            |_| vec![solicitation(v6(GUEST_LOCAL), v6(address("fe80::1")), 255)],
        ),
        // Unlike ARP, it is not answered. An exception may let it through.
        row(
            "solicitation of another address of the host",
            Open::Delivered,
            Unanswered,
            |_| vec![solicitation(v6(GUEST_LOCAL), v6(OTHER_V6), 255)],
        ),
        row(
            "solicitation that was routed",
            Open::Delivered,
            Refused(Nothing),
            |_| vec![solicitation(v6(GUEST_V6), v6(GATEWAY_V6), 64)],
        ),
        row(
            "advertisement of the guest",
            Open::Delivered,
            Through,
            |_| {
                let mut rest = vec![0x60, 0, 0, 0];
                rest.extend(v6(GUEST_V6).octets());
                rest.extend([2, 1]);
                rest.extend(GUEST_MAC);
                to_host(&wire::discovery(
                    v6(GUEST_V6),
                    v6(GATEWAY_V6),
                    255,
                    136,
                    &rest,
                ))
            },
        ),
    ]
}

fn routers() -> Vec<Row> {
    let all = |group: &str, kind: u8, rest: Vec<u8>| {
        let group = address(group);
        move |_: &super::super::row::Sender| {
            let packet = wire::discovery(v6(GUEST_LOCAL), v6(group), 255, kind, &rest);
            vec![to(group_mac(group), &packet)]
        }
    };
    let mut redirect = vec![0; 4];
    redirect.extend(v6(GUEST_LOCAL).octets());
    redirect.extend(v6(address("2001:db8:5::5")).octets());
    vec![
        row(
            "solicitation of routers",
            Open::Delivered,
            Through,
            all("ff02::2", 133, vec![0; 4]),
        ),
        row(
            "advertisement as a router",
            Open::Delivered,
            Refused(Nothing),
            all("ff02::1", 134, vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        row(
            "redirect by IPv6",
            Open::Delivered,
            Refused(Nothing),
            move |_| {
                to_host(&wire::discovery(
                    v6(GUEST_LOCAL),
                    v6(GATEWAY_V6),
                    255,
                    137,
                    &redirect,
                ))
            },
        ),
    ]
}

fn memberships() -> Vec<Row> {
    vec![
        row(
            "a report of memberships by IPv6",
            Open::Sent,
            NotForTheHost,
            |_| {
                let report = [
                    &[0, 0, 0, 1, 4, 0, 0, 0][..],
                    &v6(address("ff02::1:ff00:10")).octets(),
                ]
                .concat();
                let (next, payload) =
                    wire::icmp_payload(GUEST_LOCAL, address("ff02::16"), 143, 0, &report);
                // Hop-by-hop options with a router alert.
                let options = [&[next, 0, 5, 2, 0, 0, 1, 0][..], &payload].concat();
                let packet = wire::v6(v6(GUEST_LOCAL), v6(address("ff02::16")), 0, 1, &options);
                vec![to(group_mac(address("ff02::16")), &packet)]
            },
        ),
        row(
            "a report of memberships by IPv4",
            Open::Sent,
            NotForTheHost,
            |_| {
                let mut report = vec![0x16, 0, 0, 0, 239, 1, 2, 3];
                let sum = wire::checksum(&[&report]);
                report[2..4].copy_from_slice(&sum.to_be_bytes());
                let group = address("239.1.2.3");
                let packet = wire::v4(v4(GUEST_V4), v4(group), 2, 1, &[0x94, 4, 0, 0], &report);
                vec![to(group_mac(group), &packet)]
            },
        ),
    ]
}
