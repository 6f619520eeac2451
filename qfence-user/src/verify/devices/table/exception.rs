//! What the gateway serves, and what only looks like it.

use super::super::row::{
    Fenced::{Refused, Through},
    Open, Row,
    Said::{Either, Nothing, Prohibited, Reset},
    address, group_mac, row, to, to_host,
};
use crate::{
    probe::frame::wire::{self, BROADCAST},
    verify::devices::scene::{
        GATEWAY_LOCAL, GATEWAY_V4, GATEWAY_V6, GUEST_LOCAL, GUEST_V4, OTHER_V4,
    },
};

/// A request for an address, as far as anybody reads it here.
const DISCOVER: [u8; 240] = {
    let mut bytes = [0; 240];
    bytes[0] = 1;
    bytes[1] = 1;
    bytes[2] = 6;
    bytes
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = dhcp();
    for gateway in [GATEWAY_V4, GATEWAY_V6, GATEWAY_LOCAL] {
        rows.push(row(
            format!("a question to {gateway}"),
            Open::Delivered,
            Through,
            move |by| to_host(&by.udp(gateway, 53)),
        ));
        rows.push(row(
            format!("a connection for questions to {gateway}"),
            Open::Delivered,
            Through,
            move |by| to_host(&by.syn(gateway, 53)),
        ));
        rows.push(row(
            format!("a question to {gateway} in fragments"),
            Open::Delivered,
            Refused(Either),
            move |by| {
                let whole = wire::udp((by.source(gateway), by.port), (gateway, 53), &[7; 120]);
                let pieces = wire::fragments(&whole, 64);
                pieces.iter().flat_map(|piece| to_host(piece)).collect()
            },
        ));
    }
    rows.push(row(
        "a question to another address of the host",
        Open::Delivered,
        Refused(Prohibited),
        |by| to_host(&by.udp(OTHER_V4, 53)),
    ));
    rows.push(row(
        "a connection for questions to another address of the host",
        Open::Delivered,
        Refused(Reset),
        |by| to_host(&by.syn(OTHER_V4, 53)),
    ));
    rows.push(row(
        "a question to the group of names",
        Open::Delivered,
        Refused(Nothing),
        |by| {
            let group = address("224.0.0.251");
            vec![to(group_mac(group), &by.udp(group, 53))]
        },
    ));
    rows
}

fn dhcp() -> Vec<Row> {
    vec![
        row("a request for an address", Open::Delivered, Through, |_| {
            let (from, all) = (address("0.0.0.0"), address("255.255.255.255"));
            vec![to(BROADCAST, &wire::udp((from, 68), (all, 67), &DISCOVER))]
        }),
        row(
            "a request to keep an address",
            Open::Delivered,
            Through,
            |_| to_host(&wire::udp((GUEST_V4, 68), (GATEWAY_V4, 67), &DISCOVER)),
        ),
        row(
            "a request for an address by IPv6",
            Open::Delivered,
            Through,
            |_| {
                let group = address("ff02::1:2");
                let packet = wire::udp((GUEST_LOCAL, 546), (group, 547), &[1, 1, 2, 3]);
                vec![to(group_mac(group), &packet)]
            },
        ),
        row(
            "a request for an address, to another address of the host",
            Open::Delivered,
            Refused(Prohibited),
            |_| to_host(&wire::udp((GUEST_V4, 68), (OTHER_V4, 67), &DISCOVER)),
        ),
        row(
            "a request for an address, from another port",
            Open::Delivered,
            Refused(Nothing),
            |by| {
                let all = address("255.255.255.255");
                vec![to(
                    BROADCAST,
                    &wire::udp((GUEST_V4, by.port), (all, 67), &DISCOVER),
                )]
            },
        ),
        row(
            "a request for an address in fragments",
            Open::Delivered,
            Refused(Nothing),
            |_| {
                let (from, all) = (address("0.0.0.0"), address("255.255.255.255"));
                let whole = wire::udp((from, 68), (all, 67), &DISCOVER);
                let pieces = wire::fragments(&whole, 64);
                pieces.iter().map(|piece| to(BROADCAST, piece)).collect()
            },
        ),
    ]
}
