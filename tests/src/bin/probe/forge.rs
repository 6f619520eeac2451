//! Sends a datagram with a forged source out of a device. Needs CAP_NET_RAW in the network namespace.

use std::{mem::size_of, net::SocketAddrV4, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::socket::{LinkAddr, MsgFlags, SockaddrLike as _, sendto},
};
use socket2::{Domain, Socket, Type};

/// ETH_P_IP (linux/if_ether.h), in network order.
const IPV4: u16 = 0x0800_u16.to_be();

/// Sends one datagram, given as `DEVICE/SOURCE:PORT/DESTINATION:PORT`.
pub(crate) fn run(text: &str) -> Result<()> {
    let mut parts = text.split('/');
    let mut part = || parts.next().context("expected DEVICE/SOURCE/DESTINATION");
    let device = part()?;
    let source: SocketAddrV4 = part()?.parse().context("read the source")?;
    let destination: SocketAddrV4 = part()?.parse().context("read the destination")?;
    let index = if_nametoindex(device).with_context(|| format!("find {device}"))?;

    let mut packet = Vec::new();
    PacketBuilder::ipv4(source.ip().octets(), destination.ip().octets(), 64)
        .udp(source.port(), destination.port())
        .write(&mut packet, b"hello")
        .context("write the packet")?;

    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None).context("open a packet socket")?;
    sendto(
        socket.as_raw_fd(),
        &packet,
        &link_address(index)?,
        MsgFlags::empty(),
    )
    .context("send the packet")?;
    Ok(())
}

/// A device as the destination of IPv4 packets. The link-layer address is all zeros, which is that of loopback.
fn link_address(index: u32) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET)?,
        sll_protocol: IPV4,
        sll_ifindex: i32::try_from(index).context("an index of a device")?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let size = u32::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: a complete `sockaddr_ll` of its family, with its size.
    let address = unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(size)) };
    address.context("make a link address")
}
