//! The kernel's announcements of changes that its local routes can have part in.
//!
//! New routes have a socket of their own, which is read at once. All else is never urgent: while the routes are about to
//! be read anyway, the kernel queues it. The sockets are not rtnetlink's, which would read and parse all of it.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::libc;
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

use super::{
    AddressError,
    routes::{LOCAL_TYPES, LocalPrefixes},
};
use crate::base::readable::readable;

/// The groups of routes.
const ROUTES: [u32; 2] = [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE];

/// The other groups that a change can be announced by. Routes are removed without an announcement of their own when
/// their device goes down, so that addresses and links are followed as well.
const OTHERS: [u32; 3] = [
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_LINK,
];

/// The longest announcement that is looked at, in bytes. Of a route that is enough; of others only the header counts.
const LONGEST: usize = 16 * 1024;

/// What was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// Something that adds no address that was not known: that comes by a route.
    Other,
    /// An address that was not known, or more than could be received.
    Address,
}

/// A subscription to announcements.
pub(super) struct Announcements {
    /// New routes that lead to the host.
    new: Group,
    /// All else.
    others: Group,
}

/// A socket for some of the announcements.
struct Group {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Announcements {
    /// Subscribes. Must be called within a tokio runtime.
    pub(super) fn subscribe() -> io::Result<Self> {
        Ok(Self {
            new: Group::join(ROUTES, Only::New)?,
            others: Group::join(ROUTES.into_iter().chain(OTHERS), Only::Other)?,
        })
    }

    /// Waits for news, given what is known; for new addresses alone if `is_due`, a reading that takes in all else.
    /// Announcements that are already there are taken as one. Nothing is lost if this is not awaited to its end.
    pub(super) async fn next(
        &mut self,
        known: &LocalPrefixes,
        is_due: bool,
    ) -> Result<News, AddressError> {
        tokio::select! {
            news = self.new.next(known) => news,
            news = self.others.next(known), if !is_due => news,
        }
    }

    /// Drops what has been announced up to now.
    pub(super) fn discard(&mut self) -> Result<(), AddressError> {
        self.new.discard()?;
        self.others.discard()
    }
}

impl Group {
    fn join(groups: impl IntoIterator<Item = u32>, only: Only) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        SockRef::from(&socket).attach_filter(&filter(only))?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket: readable(socket)?,
            buffer: Vec::with_capacity(LONGEST),
        })
    }

    async fn next(&mut self, known: &LocalPrefixes) -> Result<News, AddressError> {
        loop {
            let readable = self.socket.readable().await;
            let mut ready = readable.map_err(AddressError::Ended)?;
            let mut news = None;
            while let Some(received) = receive(ready.get_inner(), &mut self.buffer)? {
                news = news.max(classify(received, known));
            }
            ready.clear_ready();
            if let Some(news) = news {
                return Ok(news);
            }
        }
    }

    fn discard(&mut self) -> Result<(), AddressError> {
        while receive(self.socket.get_ref(), &mut self.buffer)?.is_some() {}
        Ok(())
    }
}

/// What was received.
enum Received<'a> {
    Message(&'a [u8]),
    /// There was more than the socket has room for, and some of it is lost.
    Overrun,
}

/// The next message; `None` if there is none yet.
fn receive<'a>(
    socket: &Socket,
    buffer: &'a mut Vec<u8>,
) -> Result<Option<Received<'a>>, AddressError> {
    loop {
        buffer.clear();
        return match socket.recv(buffer, 0) {
            Ok(_) => Ok(Some(Received::Message(buffer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                Ok(Some(Received::Overrun))
            }
            Err(error) => Err(AddressError::Ended(error)),
        };
    }
}

/// What is new in a message; `None` if nothing is. What is not understood may be anything.
fn classify(received: Received<'_>, known: &LocalPrefixes) -> Option<News> {
    let Received::Message(bytes) = received else {
        return Some(News::Address);
    };
    let kind = bytes
        .get(4..6)
        .and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    if kind != Some(libc::RTM_NEWROUTE) {
        return Some(News::Other);
    }
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
        Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)),
            ..
        }) => {
            let mut found = LocalPrefixes::default();
            found.add(&route);
            match found.all.is_empty() {
                true => None,
                false if known.contain(&found) => Some(News::Other),
                false => Some(News::Address),
            }
        }
        _ => Some(News::Address),
    }
}

/// Which announcements a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    /// New routes that lead to the host.
    New,
    /// All else, without routes that do not lead to the host.
    Other,
}

/// Has the kernel drop announcements that a socket is not for. A router changes thousands of routes.
///
/// Netlink runs the filter of a socket for multicast messages too (`do_one_broadcast` in net/netlink/af_netlink.c), and
/// an announcement is one message (`rtmsg_fib`, `inet6_rt_notify`). The type of the route is the eighth byte after the
/// header of the message (`struct rtmsg`).
#[expect(
    clippy::cast_possible_truncation,
    reason = "the codes of instructions have 16 bits"
)]
fn filter(only: Only) -> [SockFilter; 9] {
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const IS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Where the type of a message is.
    const KIND: u32 = 4;
    /// Where the type of a route is.
    const ROUTE_TYPE: u32 = 16 + 7;
    // The program loads in network order what netlink writes in the host's.
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let [local, broadcast, anycast] = LOCAL_TYPES.map(|kind| u32::from(u8::from(kind)));
    // Jumps count from the next instruction: to the type of a route at 3, to pass at 7, and to drop at 8.
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

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, os::unix::net::UnixDatagram};

    use netlink_packet_route::{
        link::LinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    };

    use super::*;

    /// A route in the table `local`.
    fn route(kind: RouteType, destination: &str) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.table = 255;
        route.header.kind = kind;
        route.header.protocol = RouteProtocol::Kernel;
        let IpAddr::V4(v4) = destination.parse().unwrap() else {
            panic!("{destination}");
        };
        route.header.address_family = netlink_packet_route::AddressFamily::Inet;
        route.header.destination_prefix_length = 32;
        let destination = RouteAttribute::Destination(RouteAddress::Inet(v4));
        route.attributes.push(destination);
        route
    }

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Which of the two sockets the kernel would give a message to.
    fn passes(message: RouteNetlinkMessage) -> [bool; 2] {
        let sent = bytes(message);
        [Only::New, Only::Other].map(|only| {
            // A filter is one for all kinds of sockets.
            let (from, to) = UnixDatagram::pair().unwrap();
            SockRef::from(&to).attach_filter(&filter(only)).unwrap();
            to.set_nonblocking(true).unwrap();
            from.send(&sent).unwrap();
            let mut received = vec![0; LONGEST];
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

    #[test]
    fn a_new_address_is_told_from_what_is_known_and_from_what_is_none() {
        let mut known = LocalPrefixes::default();
        known.add(&route(RouteType::Local, "192.0.2.1"));
        let news = |message| classify(Received::Message(&bytes(message)), &known);
        let new = |kind, address| news(RouteNetlinkMessage::NewRoute(route(kind, address)));
        assert_eq!(new(RouteType::Local, "192.0.2.1"), Some(News::Other));
        assert_eq!(new(RouteType::Local, "192.0.2.2"), Some(News::Address));
        // It names many from now on.
        assert_eq!(new(RouteType::Broadcast, "192.0.2.1"), Some(News::Address));
        assert_eq!(new(RouteType::Unicast, "192.0.2.2"), None);
        let gone = route(RouteType::Local, "192.0.2.1");
        let gone = news(RouteNetlinkMessage::DelRoute(gone));
        assert_eq!(gone, Some(News::Other));
        let link = news(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        assert_eq!(link, Some(News::Other));
    }

    #[test]
    fn what_was_lost_or_is_not_understood_may_be_an_address() {
        let known = LocalPrefixes::default();
        assert_eq!(classify(Received::Overrun, &known), Some(News::Address));
        let mut cut = bytes(RouteNetlinkMessage::NewRoute(route(
            RouteType::Local,
            "192.0.2.1",
        )));
        cut.truncate(20);
        let cut = classify(Received::Message(&cut), &known);
        assert_eq!(cut, Some(News::Address));
    }
}
