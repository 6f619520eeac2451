//! Services of the private host and internet: they answer whoever comes. What arrives without a
//! service is seen by the witness.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    thread,
};

use anyhow::{Context, Result};

use super::scene::{NAMESERVER, SERVER_V4, SERVER_V6, Scene};

/// The port of the services.
pub const PORT: u16 = 8080;

/// The port of nameservers.
pub const DNS: u16 = 53;

/// What the services say.
const GREETING: &[u8] = b"hello\n";

/// Starts the services. They end with the process.
///
/// # Errors
/// If a thread or a socket cannot be made.
pub fn start(scene: &Scene) -> Result<()> {
    let everywhere: IpAddr = if scene.has_v6 {
        // IPv4 as well, unless the host was told otherwise; that is a setting of the namespace.
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    scene.host.run(|| {
        greet(SocketAddr::new(everywhere, PORT))?;
        greet(SocketAddr::new(NAMESERVER, DNS))
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

/// Greets at an address, by TCP and UDP, in the network namespace of this thread.
fn greet(address: SocketAddr) -> Result<()> {
    let context = || format!("cannot listen at {address}");
    let listener = TcpListener::bind(address).with_context(context)?;
    let socket = UdpSocket::bind(address).with_context(context)?;
    let start = |name: &str, job: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.into()).spawn(job);
        thread.map(drop).context("cannot start a thread")
    };
    start("tcp", Box::new(move || greet_connections(&listener)))?;
    start("udp", Box::new(move || greet_datagrams(&socket)))
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
