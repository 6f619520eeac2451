//! The kernel's routes that lead to the host.

use std::{collections::BTreeSet, io, net::IpAddr};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::Handle;

use super::AddressError;
use crate::policy::{Prefix, hostset::prefix};

/// The routing table `local` (rtnetlink(7)).
const RT_TABLE_LOCAL: u8 = 255;

/// The types of route that lead to the host itself.
pub(super) const LOCAL_TYPES: [RouteType; 3] =
    [RouteType::Local, RouteType::Broadcast, RouteType::Anycast];

/// Reads the kernel's local routes.
pub(in crate::host) struct LocalRoutes(pub(super) Handle);

/// The prefixes that lead to the host.
#[derive(Clone, Debug, Default)]
pub(in crate::host) struct LocalPrefixes {
    /// All of them.
    pub(in crate::host) all: BTreeSet<Prefix>,
    /// Those of routes of type broadcast.
    pub(in crate::host) broadcast: BTreeSet<Prefix>,
    /// The interfaces with link-local addresses.
    pub(super) links: BTreeSet<u32>,
}

impl LocalPrefixes {
    /// Adds the prefix of a route that leads to the host.
    pub(super) fn add(&mut self, route: &RouteMessage) {
        let prefix = local_prefix(route);
        self.all.extend(prefix);
        if route.header.kind == RouteType::Broadcast {
            self.broadcast.extend(prefix);
        }
        if route.header.kind == RouteType::Local
            && prefix.is_some_and(|prefix| prefix.addr().is_unicast_link_local())
        {
            self.links.extend(interface(route));
        }
    }

    /// Whether all of `others` are included.
    pub(super) fn contain(&self, others: &Self) -> bool {
        self.all.is_superset(&others.all)
            && self.broadcast.is_superset(&others.broadcast)
            && self.links.is_superset(&others.links)
    }
}

impl LocalRoutes {
    /// Opens a socket in the network namespace of this thread. Must be called within a tokio runtime, which runs it.
    pub(in crate::host) fn open() -> io::Result<Self> {
        // With strict checking the kernel applies the filter of a dump (Linux 4.20, `fib_valid_dumpreq`), so that a
        // router's million routes are not sent.
        let (connection, dumps, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        Ok(Self(dumps))
    }

    /// Reads the prefixes that lead to the host now.
    pub(super) async fn dump(&self) -> Result<LocalPrefixes, AddressError> {
        self.dump_up_to(usize::MAX).await
    }

    /// As [`LocalRoutes::dump`]; stops when there are `most` prefixes.
    pub(in crate::host) async fn dump_up_to(
        &self,
        most: usize,
    ) -> Result<LocalPrefixes, AddressError> {
        let mut prefixes = LocalPrefixes::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for kind in LOCAL_TYPES {
                // IPv6 has no broadcast routes.
                if family == AddressFamily::Inet6 && kind == RouteType::Broadcast {
                    continue;
                }
                let mut request = RouteMessage::default();
                request.header.address_family = family;
                request.header.kind = kind;
                let mut routes = self.0.route().get(request).execute().boxed();
                let failed = |error| AddressError::Dump {
                    kind: format!("{kind:?}"),
                    family: format!("{family:?}"),
                    error: Box::new(error),
                };
                while let Some(route) = routes.try_next().await.map_err(failed)? {
                    if prefixes.all.len() >= most {
                        return Ok(prefixes);
                    }
                    prefixes.add(&route);
                }
            }
        }
        Ok(prefixes)
    }
}

/// The interface of a route.
fn interface(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

/// The prefix of a route that leads to the host; `None` for other routes.
///
/// These routes are in the table `local`, except those of a VRF, which are in the VRF's own table. Of routes that an
/// administrator adds to other tables, only broadcast and anycast count: the host receives their packets. Routes of
/// type local in other tables do not count, because transparent proxies use `local default` in a table of their own.
/// It would make the whole internet the host.
fn local_prefix(route: &RouteMessage) -> Option<Prefix> {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(route.header.table));
    let of_the_kernel =
        table == u32::from(RT_TABLE_LOCAL) || route.header.protocol == RouteProtocol::Kernel;
    let of_any_table = route.header.kind != RouteType::Local;
    if !(of_the_kernel || of_any_table) || !LOCAL_TYPES.contains(&route.header.kind) {
        return None;
    }
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
    // A default route has no destination: it matches its whole family.
    let address = destination.or(match route.header.address_family {
        AddressFamily::Inet => Some(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
        _ => None,
    })?;
    prefix(address, route.header.destination_prefix_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(
        table: u8,
        kind: RouteType,
        protocol: RouteProtocol,
        destination: IpAddr,
    ) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.table = table;
        route.header.kind = kind;
        route.header.protocol = protocol;
        (
            route.header.address_family,
            route.header.destination_prefix_length,
        ) = match destination {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        route
            .attributes
            .push(RouteAttribute::Destination(match destination {
                IpAddr::V4(v4) => RouteAddress::Inet(v4),
                IpAddr::V6(v6) => RouteAddress::Inet6(v6),
            }));
        route
    }

    const LOCAL: u8 = RT_TABLE_LOCAL;

    #[test]
    fn local_broadcast_and_anycast_are_the_host() {
        let address: IpAddr = "192.0.2.10".parse().unwrap();
        for kind in LOCAL_TYPES {
            let found = local_prefix(&route(LOCAL, kind, RouteProtocol::Kernel, address));
            assert_eq!(found, prefix(address, 32));
        }
        let unicast = route(LOCAL, RouteType::Unicast, RouteProtocol::Kernel, address);
        assert_eq!(local_prefix(&unicast), None);
    }

    #[test]
    fn a_vrf_is_the_host_and_a_transparent_proxy_is_not() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let vrf = route(10, RouteType::Local, RouteProtocol::Kernel, address);
        assert_eq!(local_prefix(&vrf), prefix(address, 128));
        let mut proxy = route(100, RouteType::Local, RouteProtocol::Boot, address);
        proxy.attributes.clear();
        proxy.header.destination_prefix_length = 0;
        assert_eq!(local_prefix(&proxy), None);
    }

    #[test]
    fn a_broadcast_route_is_the_host_in_any_table() {
        let address: IpAddr = "192.0.2.127".parse().unwrap();
        for kind in [RouteType::Broadcast, RouteType::Anycast] {
            let found = local_prefix(&route(100, kind, RouteProtocol::Static, address));
            assert_eq!(found, prefix(address, 32));
        }
    }

    #[test]
    fn a_table_past_255_is_in_the_attribute() {
        let address: IpAddr = "192.0.2.10".parse().unwrap();
        let mut far = route(LOCAL, RouteType::Local, RouteProtocol::Static, address);
        far.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(local_prefix(&far), None);
    }
}
