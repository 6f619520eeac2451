//! The services of the private host and internet. What arrives without a service is seen by the witness.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;

use super::{
    internet::{DEVICE, NAMESERVER, SERVER_V4, SERVER_V6},
    listeners::Listener,
    netns::Netns,
    scene::Scene,
};

/// The port of the services.
pub const PORT: u16 = 8080;

/// The port of nameservers.
pub const DNS: u16 = 53;

/// A group that the host is a member of, beside those that every host is.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

/// Starts the services. They end with the value.
///
/// # Errors
/// If a thread or a socket cannot be made.
pub fn start(scene: &Scene) -> Result<Vec<Listener>> {
    let (host, any) = (&scene.host, Ipv4Addr::UNSPECIFIED.into());
    let mut started = vec![
        Listener::tcp(host, SocketAddr::new(any, PORT))?,
        // A packet socket does not see what the kernel loops back to groups: a member does.
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

/// TCP and UDP.
fn both(netns: &Netns, address: IpAddr, port: u16) -> Result<[Listener; 2]> {
    let address = SocketAddr::new(address, port);
    Ok([
        Listener::tcp(netns, address)?,
        Listener::udp(netns, address)?,
    ])
}
