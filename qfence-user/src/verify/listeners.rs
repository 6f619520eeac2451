//! Services of the private host and internet: they answer whoever comes. What arrives without a
//! service is seen by the witness.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Socket, Type};

use super::scene::{DEVICE, NAMESERVER, SERVER_V4, SERVER_V6, Scene};

/// The port of the services.
pub const PORT: u16 = 8080;

/// The port of nameservers.
pub const DNS: u16 = 53;

/// A group that the host is a member of, beside those that every host is.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

/// How many connections may wait. One does.
const BACKLOG: i32 = 16;

/// What the services say.
const GREETING: &[u8] = b"hello\n";

/// Starts the services. They end with the process.
///
/// # Errors
/// If a thread or a socket cannot be made.
pub fn start(scene: &Scene) -> Result<()> {
    scene.host.run(|| {
        // A packet socket does not see what the kernel loops back to groups: a member does.
        let members = greet(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT))?;
        let device = if_nametoindex(DEVICE).with_context(|| format!("no device {DEVICE}"))?;
        members
            .join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(device))
            .context("cannot join a group")?;
        if scene.has_v6 {
            greet(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT))?;
        }
        greet(SocketAddr::new(NAMESERVER, DNS)).map(drop)
    })?;
    scene.internet.run(|| {
        // By address, so that answers come from where the question went.
        greet(SocketAddr::new(SERVER_V4, PORT))?;
        if scene.has_v6 {
            greet(SocketAddr::new(SERVER_V6, PORT))?;
        }
        Ok(())
    })
}

/// Greets at an address, by TCP and UDP, in the network namespace of this thread; returns the socket
/// for UDP.
fn greet(address: SocketAddr) -> Result<Socket> {
    let context = || format!("cannot listen at {address}");
    let listener = bound(address, Type::STREAM).with_context(context)?;
    listener.listen(BACKLOG).with_context(context)?;
    let socket = bound(address, Type::DGRAM).with_context(context)?;
    let own = socket.try_clone().with_context(context)?;
    let start = |name: &str, job: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.into()).spawn(job);
        thread.map(drop).context("cannot start a thread")
    };
    start(
        "tcp",
        Box::new(move || greet_connections(&TcpListener::from(listener))),
    )?;
    start(
        "udp",
        Box::new(move || greet_datagrams(&UdpSocket::from(socket))),
    )?;
    Ok(own)
}

/// A socket of one family alone: one for both is no member of IPv4 groups.
fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn greet_connections(listener: &TcpListener) {
    for stream in listener.incoming() {
        // Who does not wait for an answer misses it.
        let _ = stream.and_then(|mut stream| stream.write_all(GREETING));
    }
}

fn greet_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    loop {
        // An error is of one datagram: the next may do.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(GREETING, peer);
        }
    }
}
