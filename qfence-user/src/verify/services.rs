//! Starts the services of the private host and internet. The witness sees packets to ports without a service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::{
    internet::{DEVICE, HOST_V4, NAMESERVER, SERVER_V4, SERVER_V6},
    listeners::Listener,
    netns::Netns,
    scene::Scene,
    translator::Translator,
};
use crate::policy::nat64;

/// The port of the services.
pub const PORT: u16 = 8080;

/// The port of nameservers.
pub const DNS: u16 = 53;

/// A multicast group that the host has joined, in addition to those of every host.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

/// Starts the services. They end when the value is dropped.
///
/// # Errors
/// If a thread or a socket cannot be made.
pub fn start(scene: &Scene) -> Result<Vec<Listener>> {
    let (host, any) = (&scene.host, Ipv4Addr::UNSPECIFIED.into());
    let mut started = vec![
        Listener::tcp(host, SocketAddr::new(any, PORT))?,
        // A packet socket does not see group packets that the kernel loops back, but a member of the group does.
        Listener::member(host, SocketAddr::new(any, PORT), GROUP, DEVICE)?,
    ];
    started.extend(both(host, NAMESERVER, DNS)?);
    started.extend(both(&scene.internet, SERVER_V4, PORT)?);
    if scene.has_v6 {
        started.extend(both(host, Ipv6Addr::UNSPECIFIED.into(), PORT)?);
        started.extend(both(&scene.internet, SERVER_V6, PORT)?);
    }
    Ok(started)
}

/// Starts a translator between the host and its IPv4 address, and a server. It ends when the value is dropped.
///
/// # Errors
/// If a route, a thread or a socket cannot be made.
pub fn translate(scene: &Scene) -> Result<Option<Translator>> {
    let targets = [HOST_V4, SERVER_V4].map(|address| match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    });
    let start = || Translator::start(&scene.internet, nat64::WELL_KNOWN, &targets, PORT);
    scene.has_v6.then(start).transpose()
}

/// Starts a TCP and a UDP listener.
fn both(netns: &Netns, address: IpAddr, port: u16) -> Result<[Listener; 2]> {
    let address = SocketAddr::new(address, port);
    Ok([
        Listener::tcp(netns, address)?,
        Listener::udp(netns, address)?,
    ])
}
