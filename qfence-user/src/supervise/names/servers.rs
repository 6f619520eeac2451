//! The nameservers that a resolver asks, and where it listens.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    host::nameservers,
    resolver::{Endpoint, Nameservers},
};

/// The port of nameservers.
const DNS: u16 = 53;

/// The nameservers that the resolver asks. Without any, that of this machine, as resolv.conf(5) has it.
pub(super) fn asked(found: &nameservers::Nameservers) -> Nameservers {
    let servers = found.servers.iter();
    let mut servers: Vec<_> = servers.filter_map(|server| server.endpoint(DNS)).collect();
    if found.servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS).into());
    }
    Nameservers {
        servers,
        options: found.options,
    }
}

/// The nameservers that are asked, in words.
pub(super) fn in_words(found: &nameservers::Nameservers) -> String {
    let servers: Vec<_> = asked(found)
        .servers
        .into_iter()
        .take(Nameservers::USED)
        .map(|server| server.ip().to_string())
        .collect();
    match found.servers.is_empty() {
        true => format!(
            "resolv.conf has no usable nameserver, so {} is asked",
            servers.join(", ")
        ),
        false => format!("asked: {}", servers.join(", ")),
    }
}

/// The addresses at which a resolver listens.
pub(super) fn listens_at(endpoint: Endpoint) -> Vec<SocketAddr> {
    let Endpoint { v4, port, has_v6 } = endpoint;
    let v6 = has_v6.then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let v4 = SocketAddr::from((v4, port));
    [v4].into_iter().chain(v6).collect()
}
