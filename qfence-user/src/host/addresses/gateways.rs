//! The gateways of the default routes. Only a policy that names them reads them, because the kernel cannot list the
//! default routes alone.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};
use nix::libc;
use tokio::time::{Instant, sleep_until};

use super::{AddressError, announcements::Group, filter::default_routes, routes::LocalRoutes};
use crate::{
    host::fact::Fact,
    policy::{Prefix, hostset::single},
};

/// The shortest time between readings, while default routes change.
const REST: Duration = Duration::from_secs(1);

/// The longest time between readings: the kernel does not announce the removal of a device's IPv4 routes.
const PERIOD: Duration = Duration::from_secs(30);

/// The gateways of the default routes, as a fact that can be followed.
#[derive(Default)]
pub struct Gateways {
    /// Opened by the first reading, and again after a failure.
    sockets: Option<(Group, LocalRoutes)>,
    read: Option<Instant>,
}

impl Gateways {
    async fn dump(&mut self) -> Result<BTreeSet<Prefix>, AddressError> {
        let (news, routes) = match &mut self.sockets {
            Some(sockets) => sockets,
            none => {
                let groups = [libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE];
                let news = Group::join(groups, &default_routes());
                let news = news.map_err(AddressError::Subscribe)?;
                let routes = LocalRoutes::open().map_err(AddressError::Open)?;
                none.insert((news, routes))
            }
        };
        news.discard()?;
        self.read = Some(Instant::now());
        routes.gateways().await
    }
}

impl Fact for Gateways {
    type Value = BTreeSet<Prefix>;
    type Error = AddressError;

    async fn read(&mut self) -> Result<BTreeSet<Prefix>, AddressError> {
        let read = self.dump().await;
        if read.is_err() {
            self.sockets = None;
        }
        read
    }

    async fn changed(&mut self) -> Result<(), AddressError> {
        let (Some((news, _)), Some(read)) = (&mut self.sockets, self.read) else {
            return Ok(());
        };
        let announced = tokio::select! {
            announced = news.any() => announced,
            () = sleep_until(read + PERIOD) => return Ok(()),
        };
        if announced.is_err() {
            self.sockets = None;
        } else {
            sleep_until(read + REST).await;
        }
        announced
    }
}

/// Reads the gateways once. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel does not list the routes.
pub async fn read() -> Result<BTreeSet<Prefix>, AddressError> {
    let routes = LocalRoutes::open().map_err(AddressError::Open)?;
    routes.gateways().await
}

impl LocalRoutes {
    /// Reads the gateways of the default routes in all tables.
    async fn gateways(&self) -> Result<BTreeSet<Prefix>, AddressError> {
        let mut found = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.kind = RouteType::Unicast;
            let mut routes = self.0.route().get(request).execute().boxed();
            let failed = |error| AddressError::Dump {
                kind: "unicast".to_owned(),
                family: format!("{family:?}"),
                error: Box::new(error),
            };
            while let Some(route) = routes.try_next().await.map_err(failed)? {
                found.extend(gateways_of(&route).into_iter().map(single));
            }
        }
        Ok(found)
    }
}

/// The gateways of a route, if it is a default route. A route can have several.
fn gateways_of(route: &RouteMessage) -> Vec<IpAddr> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let hops = route
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => &hops[..],
            _ => &[],
        });
    let of_hops = hops.flat_map(|hop| &hop.attributes);
    let all = route.attributes.iter().chain(of_hops);
    all.filter_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4))
        | RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6))
        | RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    #[test]
    fn the_gateways_of_a_default_route_are_found() {
        let v4 = |last| std::net::Ipv4Addr::new(192, 0, 2, last);
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![
            RouteAttribute::Oif(2),
            RouteAttribute::Gateway(RouteAddress::Inet(v4(1))),
        ];
        assert_eq!(gateways_of(&route), [IpAddr::V4(v4(1))]);
        let mut hop = RouteNextHop::default();
        let via = RouteVia::Inet6("fe80::1".parse().unwrap());
        hop.attributes = vec![RouteAttribute::Via(via)];
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
        assert_eq!(gateways_of(&route), ["fe80::1".parse::<IpAddr>().unwrap()]);
        route.header.destination_prefix_length = 1;
        assert!(gateways_of(&route).is_empty(), "no default route");
    }
}
