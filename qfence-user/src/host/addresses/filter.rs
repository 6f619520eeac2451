//! A socket filter with which the kernel drops announcements that a socket does not need.

use nix::libc;
use socket2::SockFilter;

use super::routes::LOCAL_TYPES;

/// The announcements that a socket needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    /// New routes that lead to the host.
    New,
    /// All others, except routes that do not lead to the host.
    Other,
}

/// The filter for a socket. Without it a router with thousands of routes would flood the socket.
///
/// Netlink also filters multicast messages (`do_one_broadcast` in net/netlink/af_netlink.c), and each announcement is
/// one message (`rtmsg_fib`, `inet6_rt_notify`). The type of a route is the eighth byte after the message's header
/// (`struct rtmsg`).
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of instructions have 16 bits"
)]
pub(super) fn filter(only: Only) -> [SockFilter; 9] {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The offset of the message's type.
    const KIND: u32 = 4;
    /// The offset of the route's type.
    const ROUTE_TYPE: u32 = 16 + 7;
    // The filter loads in network byte order, and netlink writes in the host's.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let [local, broadcast, anycast] = LOCAL_TYPES.map(|kind| u32::from(u8::from(kind)));
    // Jumps count from the next instruction: 3 loads the route's type, 7 passes, 8 drops.
    let (new, deleted, other) = match only {
        Only::New => (1, 5, 5),
        Only::Other => (6, 0, 4),
    };
    [
        SockFilter::new(LOAD_HALF, 0, 0, KIND),
        SockFilter::new(IS_EQUAL, new, 0, kind(libc::RTM_NEWROUTE)),
        SockFilter::new(IS_EQUAL, deleted, other, kind(libc::RTM_DELROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, ROUTE_TYPE),
        SockFilter::new(IS_EQUAL, 2, 0, local),
        SockFilter::new(IS_EQUAL, 1, 0, broadcast),
        SockFilter::new(IS_EQUAL, 0, 1, anycast),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The filter for a socket that needs the announcements of default routes only: routes whose destination has no bits.
/// That is the second byte after the message's header.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of instructions have 16 bits"
)]
pub(super) fn default_routes() -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The offset of the length of the destination.
    const LENGTH: u32 = 16 + 1;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, LENGTH),
        SockFilter::new(IS_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::{io, os::unix::net::UnixDatagram};

    use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage, route::RouteType};
    use socket2::SockRef;

    use super::{
        super::testing::{bytes, route},
        *,
    };

    /// Whether each of the two sockets gets a message.
    fn passes(message: RouteNetlinkMessage) -> [bool; 2] {
        let sent = bytes(message);
        [Only::New, Only::Other].map(|only| {
            // Filters work the same for all types of sockets.
            let (from, to) = UnixDatagram::pair().unwrap();
            SockRef::from(&to).attach_filter(&filter(only)).unwrap();
            to.set_nonblocking(true).unwrap();
            from.send(&sent).unwrap();
            let mut received = vec![0; 16 * 1024];
            match to.recv(&mut received) {
                Ok(length) => {
                    assert_eq!(received[..length], sent, "cut off");
                    true
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    false
                }
            }
        })
    }

    #[test]
    fn the_kernel_drops_routes_that_do_not_lead_to_the_host() {
        let passes_of_routes = |kind| {
            let route = route(kind, "192.0.2.1");
            let new = RouteNetlinkMessage::NewRoute(route.clone());
            let deleted = RouteNetlinkMessage::DelRoute(route);
            [new, deleted].map(passes)
        };
        for kind in LOCAL_TYPES {
            let passed = passes_of_routes(kind);
            assert_eq!(passed, [[true, false], [false, true]], "{kind:?}");
        }
        for kind in [
            RouteType::Unicast,
            RouteType::Multicast,
            RouteType::Unreachable,
        ] {
            assert_eq!(passes_of_routes(kind), [[false; 2]; 2], "{kind:?}");
        }
        let link = LinkMessage::default();
        for message in [
            RouteNetlinkMessage::NewLink(link.clone()),
            RouteNetlinkMessage::DelLink(link),
            RouteNetlinkMessage::DelAddress(Default::default()),
        ] {
            assert_eq!(passes(message), [false, true]);
        }
    }
}
