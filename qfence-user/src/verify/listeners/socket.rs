//! The sockets of the listeners. All functions run inside the listener's namespace.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::{
    cmsg_space, libc,
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike as _,
        SockaddrStorage, bind, getsockname, listen, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::Arrival;

pub(super) fn tcp(address: SocketAddr) -> Result<OwnedFd> {
    listening(address, Protocol::TCP)
}

pub(super) fn mptcp(address: SocketAddr) -> Result<OwnedFd> {
    listening(address, Protocol::MPTCP)
}

fn listening(address: SocketAddr, protocol: Protocol) -> Result<OwnedFd> {
    let socket = open(address, Type::STREAM, protocol)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true).context("set SO_REUSEADDR")?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).context("bind")?;
    listen(&socket, Backlog::new(256)?).context("listen")?;
    Ok(socket)
}

pub(super) fn udp(address: SocketAddr) -> Result<OwnedFd> {
    receiving(address, Protocol::UDP)
}

pub(super) fn udplite(address: SocketAddr) -> Result<OwnedFd> {
    receiving(address, Protocol::UDPLITE)
}

fn receiving(address: SocketAddr, protocol: Protocol) -> Result<OwnedFd> {
    let socket = open(address, Type::DGRAM, protocol)?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).context("set IP_PKTINFO")?;
    } else {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).context("set IPV6_RECVPKTINFO")?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).context("bind")?;
    Ok(socket)
}

/// A UDP socket that is a member of a multicast group on a device.
pub(super) fn member(address: SocketAddr, group: IpAddr, device: &str) -> Result<OwnedFd> {
    let index = if_nametoindex(device).with_context(|| format!("find {device}"))?;
    let address = match address {
        SocketAddr::V6(mut address) if address.ip().is_multicast() => {
            address.set_scope_id(index);
            address.into()
        }
        address => address,
    };
    let socket = Socket::from(udp(address)?);
    match group {
        IpAddr::V4(group) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
        }
        IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
    }
    .context("join")?;
    Ok(socket.into())
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let socket: OwnedFd = Socket::new(domain, kind.nonblocking(), Some(protocol))
        .context("open a socket")?
        .into();
    if address.is_ipv6() {
        // Without it, 0.0.0.0 and [::] could not be bound to the same port.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true).context("set IPV6_V6ONLY")?;
    }
    Ok(socket)
}

pub(super) fn local_address(socket: &OwnedFd) -> Result<SocketAddr> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).context("getsockname")?;
    to_std(&name).context("a socket of another family")
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => Some(SocketAddrV4::from(*address.as_sockaddr_in()?).into()),
        AddressFamily::Inet6 => Some(SocketAddrV6::from(*address.as_sockaddr_in6()?).into()),
        _ => None,
    }
}

/// A datagram, and the address from which to answer it.
pub(super) struct Datagram {
    pub(super) arrival: Arrival,
    from: Option<PacketInfo>,
}

enum PacketInfo {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Takes a datagram from the queue; `None` if the queue is empty.
pub(super) fn receive(socket: &impl AsFd, port: u16) -> Option<Datagram> {
    let mut content = vec![0; 65536];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let (peer, length, info) = {
        let mut slices = [std::io::IoSliceMut::new(&mut content)];
        let fd = socket.as_fd().as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags).ok()?;
        let info = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(PacketInfo::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(PacketInfo::V6(info)),
            _ => None,
        })?;
        (to_std(&message.address?)?, message.bytes, info)
    };
    content.truncate(length);
    let destination: IpAddr = match &info {
        PacketInfo::V4(info) => IpAddr::V4(u32::from_be(info.ipi_addr.s_addr).into()),
        PacketInfo::V6(info) => IpAddr::V6(info.ipi6_addr.s6_addr.into()),
    };
    let from = match info {
        // A broadcast or multicast is answered from the address that the kernel reports in `in_pktinfo`.
        PacketInfo::V4(info) => Some(PacketInfo::V4(libc::in_pktinfo {
            ipi_ifindex: 0,
            ..info
        })),
        PacketInfo::V6(_) if destination.is_multicast() => None,
        PacketInfo::V6(info) => Some(PacketInfo::V6(info)),
    };
    let local = SocketAddr::new(destination, port);
    Some(Datagram {
        arrival: Arrival {
            peer,
            local,
            bytes: content,
        },
        from,
    })
}

/// Answers a datagram, from the address that it was sent to.
pub(super) fn answer(socket: &impl AsFd, to: &Datagram, content: &[u8]) {
    let control = to.from.as_ref().map(|info| match info {
        PacketInfo::V4(info) => ControlMessage::Ipv4PacketInfo(info),
        PacketInfo::V6(info) => ControlMessage::Ipv6PacketInfo(info),
    });
    let slices = [std::io::IoSlice::new(content)];
    let peer = SockaddrStorage::from(to.arrival.peer);
    let fd = socket.as_fd().as_raw_fd();
    // The peer may have ended. That is no error of the listener.
    let _ = sendmsg(
        fd,
        &slices,
        control.as_slice(),
        MsgFlags::MSG_DONTWAIT,
        Some(&peer),
    );
}
