//! A greeting for whoever comes.

use std::{
    io::{self, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{bulk, connect::shared_udp_socket};

/// What the services say.
const GREETING: &[u8] = b"hello from the probe\n";

/// Serves on every address, IPv4 and IPv6; says `serving` when all services are ready.
pub(crate) fn run(services: impl Iterator<Item = String>) -> Result<()> {
    let mut threads = Vec::new();
    for service in services {
        let (protocol, port) = service.split_once('/').context("PROTOCOL/PORT, please")?;
        let address = (
            Ipv6Addr::UNSPECIFIED,
            port.parse().context("read the port")?,
        );
        let listen = || TcpListener::bind(address).context("listen");
        let bind = || UdpSocket::bind(address).context("bind");
        threads.push(match protocol {
            "tcp" => with(listen()?, greet_connections),
            "udp" => serve_datagrams(address.into(), UdpSocket::send_to)?,
            "udp-connected" => serve_datagrams(address.into(), |socket, bytes, peer| {
                socket.connect(peer)?;
                socket.send(bytes)
            })?,
            "udp-new" => serve_datagrams(address.into(), |socket, bytes, peer| {
                let fresh = shared_udp_socket(socket.local_addr()?)?;
                fresh.connect(peer)?;
                fresh.send(bytes)
            })?,
            "echo-tcp" => with(listen()?, bulk::echo_connections),
            "echo-mptcp" => with(
                TcpListener::from(open(address.into(), Type::STREAM, Protocol::MPTCP)?),
                bulk::echo_connections,
            ),
            "echo-udplite" => with(
                UdpSocket::from(open(address.into(), Type::DGRAM, Protocol::UDPLITE)?),
                bulk::echo_datagrams,
            ),
            "echo-udp" => with(bind()?, bulk::echo_datagrams),
            _ => bail!("there is no service {protocol}"),
        });
    }
    crate::print("serving")?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// A socket of a protocol that the standard library has none of, bound, and listening if it can.
fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.bind(&address.into()).context("bind")?;
    if kind == Type::STREAM {
        socket.listen(16).context("listen")?;
    }
    Ok(socket)
}

fn with<S: Send + 'static>(socket: S, serve: fn(&S)) -> JoinHandle<()> {
    thread::spawn(move || serve(&socket))
}

fn greet_connections(listener: &TcpListener) {
    for stream in listener.incoming() {
        let _ = stream.and_then(|mut stream| stream.write_all(GREETING));
    }
}

/// How an answer is sent by a socket to a peer. One that connects the socket serves that peer alone.
type Answer = fn(&UdpSocket, &[u8], SocketAddr) -> io::Result<usize>;

fn serve_datagrams(address: SocketAddr, answer: Answer) -> Result<JoinHandle<()>> {
    let socket = shared_udp_socket(address).context("bind")?;
    Ok(thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = answer(&socket, GREETING, peer);
            }
        }
    }))
}
