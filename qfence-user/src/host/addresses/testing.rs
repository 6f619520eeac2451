//! Messages of routes, for tests.

use std::net::IpAddr;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};

/// A route in the table `local`.
pub(super) fn route(kind: RouteType, destination: &str) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.table = 255;
    route.header.kind = kind;
    route.header.protocol = RouteProtocol::Kernel;
    let IpAddr::V4(v4) = destination.parse().unwrap() else {
        panic!("{destination}");
    };
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    let destination = RouteAttribute::Destination(RouteAddress::Inet(v4));
    route.attributes.push(destination);
    route
}

pub(super) fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
