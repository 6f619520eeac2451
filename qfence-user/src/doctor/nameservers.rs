//! The nameservers of the host that NAT leads to: they work in a fence, and nothing else of their addresses does.

use std::net::IpAddr;

use super::finding::Finding;
use crate::{
    base::paths::Paths,
    host::{Here, listening::serves_dns},
    policy::hostset::single,
};

const NAME: &str = "nameservers";

/// Names the nameservers that are the host's and have no server on their port. `None` if there are none.
pub async fn examine(paths: &Paths) -> Option<Finding> {
    let here = Here::read(paths).await.ok()?;
    let servers = here.nameservers.as_ref().ok()?.servers.iter();
    let is_own = |address: IpAddr| {
        let own = single(address);
        here.addresses
            .host
            .iter()
            .any(|prefix| prefix.contains(&own))
    };
    let behind_nat: Vec<_> = servers
        .map(|server| server.address)
        .filter(|address| is_own(*address) && serves_dns(&paths.proc, *address) == Some(false))
        .map(|address| address.to_string())
        .collect();
    (!behind_nat.is_empty()).then(|| {
        Finding::ok(
            NAME,
            format!(
                "no server listens on port 53 of {}; if NAT redirects this port to another one (as in a container of \
                 Docker), it works in a fence, and nothing else of that address does",
                behind_nat.join(", ")
            ),
        )
    })
}
