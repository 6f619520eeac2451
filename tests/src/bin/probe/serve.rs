//! Serves: greets, echoes, receives or sends data.

use std::{
    io::{self, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::Backlog;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{bulk, connect::shared_udp_socket, load, look_up};

/// The answer of the services that greet.
const GREETING: &[u8] = b"hello from the probe\n";

/// Serves on all addresses, IPv4 and IPv6. Prints `serving` when all services are ready.
pub(crate) fn run(services: impl Iterator<Item = String>) -> Result<()> {
    let mut threads = Vec::new();
    for service in services {
        let (protocol, port) = service.split_once('/').context("expected PROTOCOL/PORT")?;
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
            "echo-mptcp" => with(listen_mptcp(address.into())?, bulk::echo_connections),
            "accept-tcp" => {
                let listener = listen()?;
                // Listens again with the maximum backlog, for connections that arrive before this process is scheduled.
                nix::sys::socket::listen(&listener, Backlog::MAXCONN)?;
                with(listener, |listener| listener.incoming().for_each(drop))
            }
            "sink-tcp" => with(listen()?, load::sink),
            "source-tcp" => with(listen()?, load::source),
            // Never reads: the kernel drops datagrams silently when the buffer is full.
            "full-udp" => with(bind()?, |_| {
                loop {
                    thread::park();
                }
            }),
            "source-udp" => with(bind()?, load::source_datagrams),
            "dns-udp" => with(bind()?, look_up::serve),
            "echo-udp" => with(bind()?, bulk::echo_datagrams),
            _ => bail!("unknown service: {protocol}"),
        });
    }
    crate::print("serving")?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// A listener for MPTCP, which the standard library does not support.
fn listen_mptcp(address: SocketAddr) -> Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::MPTCP))?;
    socket.bind(&address.into()).context("bind")?;
    socket.listen(16).context("listen")?;
    Ok(socket.into())
}

fn with<S: Send + 'static>(socket: S, serve: fn(&S)) -> JoinHandle<()> {
    thread::spawn(move || serve(&socket))
}

fn greet_connections(listener: &TcpListener) {
    for stream in listener.incoming() {
        let _ = stream.and_then(|mut stream| stream.write_all(GREETING));
    }
}

/// Sends an answer from a socket to a peer. A function that connects the socket serves only that peer from then on.
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
