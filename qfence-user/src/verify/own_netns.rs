//! A network namespace that a process makes for itself. Its loopback is not the host's, so it must work in a fence.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};

use super::{
    calls::{Call, Called},
    netns::Netns,
    wire::Wire,
};

/// How long a step may take. A packet that is dropped shows as a step without end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The calls.
#[must_use]
pub fn calls() -> [Call; 2] {
    let call = |attempt, options: &[&str]| Call {
        attempt,
        words: [&["own-loopback"], options]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        late: &[],
        closure: "",
        short: true,
    };
    [
        call("loopback of an own namespace", &[]),
        call("loopback of a nested namespace", &["--nested"]),
    ]
}

/// Moves this process, which must have one thread, into a new user namespace and a new network namespace, or one that was
/// made from there, and talks to itself by TCP and UDP.
#[must_use]
pub fn talk(nested: bool) -> Called {
    Called::make(|| {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        by_loopback(nested).map_err(|error| {
            let errno = error.downcast_ref::<Errno>().copied();
            let of_io = || error.downcast_ref::<io::Error>()?.raw_os_error();
            errno.unwrap_or_else(|| of_io().map_or(Errno::EIO, Errno::from_raw))
        })
    })
}

fn by_loopback(nested: bool) -> Result<()> {
    let mut own = Netns::enter_new()?;
    if nested {
        own = Netns::enter_new()?;
    }
    Wire::within(&own, |wire| async move { wire.up("lo").await })?;
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    for address in [v4, v6] {
        match TcpListener::bind(address) {
            // The kernel has no IPv6.
            Err(_) if address.is_ipv6() => continue,
            listener => by_tcp(&listener?)?,
        }
        by_udp(address)?;
    }
    Ok(())
}

/// Connects to a listener of this process, and sends data.
pub(super) fn by_tcp(listener: &TcpListener) -> Result<()> {
    let mut client = TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE)?;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"hello")?;
    server.read_exact(&mut [0; 5]).context("no data")
}

fn by_udp(address: SocketAddr) -> Result<()> {
    let (client, server) = (UdpSocket::bind(address)?, UdpSocket::bind(address)?);
    server.set_read_timeout(Some(PATIENCE))?;
    client.send_to(b"hello", server.local_addr()?)?;
    client.connect(server.local_addr()?)?;
    client.send(b"again")?;
    for _ in 0..2 {
        server.recv(&mut [0; 5]).context("no datagram")?;
    }
    Ok(())
}
