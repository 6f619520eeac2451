//! The kernel's announcements of changes that can affect its local routes.
//!
//! New routes have a socket of their own, which is read at once. Other announcements are not urgent: if a reading of
//! the routes is due anyway, they stay in the kernel's queue, and do not wake this process. rtnetlink's sockets are not used,
//! because they would read and parse all messages.

use std::{io, os::fd::AsFd as _};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::libc;
use socket2::{SockFilter, SockRef};

use super::{
    AddressError,
    filter::{Only, filter},
    routes::LocalPrefixes,
};
use crate::base::readable::readable;

/// The multicast groups of routes.
const ROUTES: [u32; 2] = [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE];

/// The other groups whose announcements can affect local routes. If a device goes down, its routes are removed
/// without announcements, so addresses and links are followed as well.
const OTHERS: [u32; 3] = [
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_LINK,
];

/// The most bytes that are read of an announcement. That is sufficient for a route; of others only the header is
/// used.
const LONGEST: usize = 16 * 1024;

/// The kind of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// It adds no unknown address. New addresses come with a route.
    Other,
    /// It adds an unknown address, or announcements were lost.
    Address,
}

/// A subscription to announcements.
pub(super) struct Announcements {
    /// New routes that lead to the host.
    new: Group,
    /// All other announcements.
    others: Group,
}

/// A socket for a part of the announcements.
pub(super) struct Group {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Announcements {
    /// Subscribes. Must be called within a tokio runtime.
    pub(super) fn subscribe() -> io::Result<Self> {
        Ok(Self {
            new: Group::join(ROUTES, &filter(Only::New))?,
            others: Group::join(ROUTES.into_iter().chain(OTHERS), &filter(Only::Other))?,
        })
    }

    /// Waits for news, compared with the known prefixes. If `is_due`, a reading of all routes is due anyway, so this
    /// waits for new addresses only. Queued announcements are returned as one. Cancel safe.
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

    /// Drops the queued announcements.
    pub(super) fn discard(&mut self) -> Result<(), AddressError> {
        self.new.discard()?;
        self.others.discard()
    }
}

impl Group {
    /// Subscribes to groups; the kernel drops the announcements that do not pass the filter. An empty
    /// filter lets all pass.
    pub(super) fn join(
        groups: impl IntoIterator<Item = u32>,
        filter: &[SockFilter],
    ) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        if !filter.is_empty() {
            SockRef::from(&socket).attach_filter(filter)?;
        }
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(LONGEST),
        })
    }

    async fn next(&mut self, known: &LocalPrefixes) -> Result<News, AddressError> {
        self.find(|received| classify(received, known)).await
    }

    /// Waits for any announcement. Queued ones are returned as one. Cancel safe.
    pub(super) async fn any(&mut self) -> Result<(), AddressError> {
        self.find(|_| Some(())).await
    }

    /// Waits for an announcement in which `find` finds something; returns the greatest of what it finds in the queued ones.
    ///
    /// The socket is registered with the event loop only meanwhile, so that announcements for which nobody waits do not wake
    /// this process.
    async fn find<T: Ord>(
        &mut self,
        mut find: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<T, AddressError> {
        let Self { socket, buffer } = self;
        let registered = readable(socket.as_fd()).map_err(AddressError::Ended)?;
        loop {
            let readable = registered.readable().await;
            let mut ready = readable.map_err(AddressError::Ended)?;
            let mut found = None;
            while let Some(received) = receive(socket, buffer)? {
                found = found.max(find(received));
            }
            ready.clear_ready();
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// Drops the queued announcements.
    pub(super) fn discard(&mut self) -> Result<(), AddressError> {
        while receive(&self.socket, &mut self.buffer)?.is_some() {}
        Ok(())
    }
}

/// A received message.
pub(super) enum Received<'a> {
    Message(&'a [u8]),
    /// The socket's buffer was full, and messages were lost.
    Overrun,
}

/// The next message; `None` if there is none.
pub(super) fn receive<'a>(
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

/// Classifies a message; `None` if it is irrelevant. A message that cannot be parsed counts as a new address.
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::{link::LinkMessage, route::RouteType};

    use super::{
        super::testing::{bytes, route},
        *,
    };

    #[test]
    fn a_new_address_is_told_from_what_is_known_and_from_what_is_none() {
        let mut known = LocalPrefixes::default();
        known.add(&route(RouteType::Local, "192.0.2.1"));
        let news = |message| classify(Received::Message(&bytes(message)), &known);
        let new = |kind, address| news(RouteNetlinkMessage::NewRoute(route(kind, address)));
        assert_eq!(new(RouteType::Local, "192.0.2.1"), Some(News::Other));
        assert_eq!(new(RouteType::Local, "192.0.2.2"), Some(News::Address));
        // From now on the address names many receivers.
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
