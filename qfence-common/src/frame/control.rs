//! Messages by which hosts of one network find each other, their routers, and their addresses. A policy does not name
//! them: some are let through whatever the policy says, and some are refused whatever it says.

use crate::{Halves, Payload, Protocol, packet::Place};

/// IGMP (IANA's list of protocols).
pub const IGMP: Protocol = Protocol(2);

/// How a message is judged, apart from the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// By the policy.
    Ordinary,
    /// Only routers send it: refused.
    OfRouters,
    /// It asks for routers: let through to the host.
    RouterSolicitation,
    /// It asks for a neighbour, whose address is the target of the message.
    NeighbourSolicitation,
    /// It tells the sender's MAC address. The target of the message is the sender.
    NeighbourAdvertisement,
    /// It tells which groups somebody has joined, for bridges: let through, but not to the host.
    Membership,
}

// Types of ICMP (IANA's lists).
const REDIRECT_V4: u32 = 5;
const ROUTER_ADVERTISEMENT_V4: u32 = 9;
const ECHO_REQUEST_V4: u32 = 8;
const ECHO_REPLY_V4: u32 = 0;
const ECHO_REQUEST_V6: u32 = 128;
const ECHO_REPLY_V6: u32 = 129;
const LISTENER_QUERY: u32 = 130;
const LISTENER_DONE: u32 = 132;
const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u32 = 134;
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
const REDIRECT: u32 = 137;
const LISTENER_REPORT: u32 = 143;

/// The hop limit of neighbour discovery, which no router forwards (RFC 4861).
const NOT_FORWARDED: u32 = 255;

/// The offset of the target in a message of neighbour discovery, from its ICMP header.
pub const TARGET: u32 = 8;

/// The offset of the identifier in an echo request or reply, from its ICMP header.
pub const IDENTIFIER: u32 = 4;

/// Whether ICMP messages of this type ask for an echo.
#[must_use]
#[inline(always)]
pub const fn is_echo_request(is_v6: bool, kind: u32) -> bool {
    kind == if is_v6 {
        ECHO_REQUEST_V6
    } else {
        ECHO_REQUEST_V4
    }
}

/// Whether ICMP messages of this type are the echo.
#[must_use]
#[inline(always)]
pub const fn is_echo_reply(is_v6: bool, kind: u32) -> bool {
    kind == if is_v6 { ECHO_REPLY_V6 } else { ECHO_REPLY_V4 }
}

/// Returns how an ICMPv6 message of this type is judged.
#[must_use]
#[inline(always)]
pub const fn of_icmp_v6(kind: u32, place: Place, destination: Halves) -> Control {
    match kind {
        ROUTER_ADVERTISEMENT | REDIRECT => Control::OfRouters,
        LISTENER_QUERY..=LISTENER_DONE | LISTENER_REPORT if is_multicast(destination) => {
            Control::Membership
        }
        ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT
            if place.is_plain() && place.hops() == NOT_FORWARDED =>
        {
            match kind {
                ROUTER_SOLICITATION => Control::RouterSolicitation,
                NEIGHBOUR_SOLICITATION => Control::NeighbourSolicitation,
                _ => Control::NeighbourAdvertisement,
            }
        }
        _ => Control::Ordinary,
    }
}

/// Returns how an ICMP message of this type in an IPv4 packet is judged.
#[must_use]
#[inline(always)]
pub const fn of_icmp_v4(kind: u32) -> Control {
    match kind {
        REDIRECT_V4 | ROUTER_ADVERTISEMENT_V4 => Control::OfRouters,
        _ => Control::Ordinary,
    }
}

/// Returns how an IGMP message is judged.
#[must_use]
#[inline(always)]
pub const fn of_igmp(destination: Halves) -> Control {
    if is_multicast(destination) {
        Control::Membership
    } else {
        Control::Ordinary
    }
}

/// Whether an address is a multicast address: 224.0.0.0/4 or ff00::/8.
#[must_use]
#[inline(always)]
pub const fn is_multicast(address: Halves) -> bool {
    if address.is_v4() {
        address.lower >> 28 & 0xf == 0xe
    } else {
        address.upper >> 56 == 0xff
    }
}

/// Whether an address is a link-local unicast address, fe80::/10.
#[must_use]
#[inline(always)]
pub const fn is_link_local(address: Halves) -> bool {
    address.upper >> 54 == 0xfe80 >> 6
}

/// Whether a packet has the ports of a question to a DHCP server.
#[must_use]
#[inline(always)]
pub const fn asks_dhcp(is_v6: bool, payload: Payload) -> bool {
    let ports = if is_v6 { (546, 547) } else { (68, 67) };
    payload.protocol().0 == Protocol::UDP.0
        && payload.source_port() == ports.0
        && payload.destination_port() == ports.1
}

/// Returns the address of all DHCP servers of a network: 255.255.255.255, or ff02::1:2.
#[must_use]
#[inline(always)]
pub const fn dhcp_servers(is_v6: bool) -> Halves {
    if is_v6 {
        Halves {
            upper: 0xff02 << 48,
            lower: 0x1_0002,
        }
    } else {
        Halves::from_v4(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
