//! Receives broadcasts and datagrams to a multicast group.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

use crate::connect::shared_udp_socket;

/// Listens on a port of all IPv4 addresses as a member of a group on a device, given as `PORT/GROUP/DEVICE`. Prints
/// `serving`, and then `heard ADDRESS:PORT` for each datagram.
pub(crate) fn run(text: &str) -> Result<()> {
    let mut parts = text.split('/');
    let mut part = || parts.next().context("expected PORT/GROUP/DEVICE");
    let port = part()?.parse().context("read the port")?;
    let group: Ipv4Addr = part()?.parse().context("read the group")?;
    let device = part()?;
    if_nametoindex(device).with_context(|| format!("find {device}"))?;
    let local = getifaddrs()
        .context("list the addresses")?
        .filter(|entry| entry.interface_name == device)
        .find_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()))
        .with_context(|| format!("{device} has no IPv4 address"))?;
    let socket = shared_udp_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.join_multicast_v4(&group, &local).context("join")?;
    crate::print("serving")?;
    let mut buffer = [0; 4096];
    loop {
        let (_, peer) = socket.recv_from(&mut buffer).context("receive")?;
        crate::print(&format!("heard {peer}"))?;
    }
}
