//! Keeps connections to echo servers, and reports whether they work and how they end.

use std::{
    io::{self, Read as _, Write as _, stdin},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::attempt::{errno_name, socket_address};

/// The time limit for an echo.
const PATIENCE: Duration = Duration::from_millis(500);

/// The port to which a peer must connect for a socket that comes from accept().
const ACCEPTED_AT: u16 = 5999;

/// A connection, and the echoes that it has received.
struct Held {
    name: String,
    socket: Arc<Socket>,
    /// The destination of each datagram, if the socket is not connected.
    peer: Option<SockAddr>,
    echoes: Receiver<()>,
}

/// Opens connections, given as `tcp/ADDRESS/PORT`, `mptcp/…`, `udp/…`, and keeps them. Prints `NAME held` for each. A
/// connection given as `opening/…` is not awaited; `pair/ADDRESS/0` is a socket pair of this process. For `accepted-tcp/…` a
/// peer must connect to port 5999 first; the accepted socket is then disconnected and connected again. `sendto/…` sends by
/// an unconnected UDP socket.
///
/// For each line of input, prints `NAME stands` for each connection that echoes, or `NAME silent` if no echo arrives. For an
/// unconnected socket that may not send, prints `NAME refused ERROR`. When a connection ends, prints `NAME ended ERROR` at
/// once.
pub(crate) fn run(names: impl Iterator<Item = String>) -> Result<()> {
    let mut all = Vec::new();
    for name in names {
        let [kind, address, port] = name.split('/').collect::<Vec<_>>()[..] else {
            bail!("expected KIND/ADDRESS/PORT, not {name}");
        };
        let address = socket_address(address, port.parse().context("read the port")?)?;
        all.extend(hold(kind, address, &name).with_context(|| name.clone())?);
    }
    crate::print("holding")?;
    for line in stdin().lines() {
        line?;
        for held in &all {
            // Drops late echoes of the previous round.
            while held.echoes.try_recv().is_ok() {}
            match &held.peer {
                None if (&*held.socket).write_all(b"!").is_err() => continue,
                None => {}
                Some(peer) => {
                    if let Err(error) = held.socket.send_to(b"!", peer) {
                        let why = error.raw_os_error().map(errno_name).unwrap_or_default();
                        crate::print(&format!("{} refused {why}", held.name))?;
                        continue;
                    }
                }
            }
            match held.echoes.recv_timeout(PATIENCE) {
                Ok(()) => crate::print(&format!("{} stands", held.name))?,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    crate::print(&format!("{} silent", held.name))?;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {}
            }
        }
        crate::print("asked")?;
    }
    Ok(())
}

fn hold(kind: &str, address: SocketAddr, name: &str) -> Result<Option<Held>> {
    let (kind, protocol) = match kind {
        "tcp" => (Type::STREAM, Protocol::TCP),
        "mptcp" => (Type::STREAM, Protocol::MPTCP),
        "udp" => (Type::DGRAM, Protocol::UDP),
        "sendto" => {
            let socket = Socket::new(
                Domain::for_address(address),
                Type::DGRAM,
                Some(Protocol::UDP),
            )?;
            // It has a port to receive the answer at from the beginning.
            socket.send_to(b"!", &address.into())?;
            let mut held = held(socket, name)?;
            held.peer = Some(address.into());
            return Ok(Some(held));
        }
        "opening" => {
            let name = name.to_owned();
            thread::spawn(move || {
                let connected = TcpStream::connect(address);
                say_ended(&name, connected.map(drop).err());
            });
            return Ok(None);
        }
        "accepted-tcp" => {
            let socket = accepted(address)?;
            return Ok(Some(held(socket, name)?));
        }
        "pair" => return Ok(Some(held(pair(address)?, name)?)),
        other => bail!("unknown kind of connection: {other}"),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.connect(&address.into())?;
    Ok(Some(held(socket, name)?))
}

/// One end of a socket pair over TCP, as libslirp makes it. The other end sends all data back.
fn pair(address: SocketAddr) -> Result<Socket> {
    let listener = Socket::new_raw(Domain::for_address(address), Type::STREAM, None)?;
    listener.bind(&address.into())?;
    listener.listen(1)?;
    let socket = Socket::new_raw(Domain::for_address(address), Type::STREAM, None)?;
    socket.connect(&listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    thread::spawn(move || io::copy(&mut &other, &mut &other));
    Ok(socket)
}

/// A socket from accept(), disconnected from its peer (connect(2) with AF_UNSPEC) and connected again.
fn accepted(address: SocketAddr) -> Result<Socket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, ACCEPTED_AT)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, ACCEPTED_AT)),
    };
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&any.into())?;
    listener.listen(1)?;
    let (socket, _) = listener.accept()?;
    // AF_UNSPEC is zero.
    let nobody = SockAddrStorage::zeroed();
    // SAFETY: all bytes of the storage are initialised, and the length is within its size.
    let nobody = unsafe { SockAddr::new(nobody, 16) };
    socket
        .connect(&nobody)
        .context("disconnect from the peer")?;
    socket.connect(&address.into())?;
    Ok(socket)
}

fn held(socket: Socket, name: &str) -> Result<Held> {
    let socket = Arc::new(socket);
    let (sender, echoes) = mpsc::channel();
    let (reader, its_name) = (Arc::clone(&socket), name.to_owned());
    thread::spawn(move || listen(&reader, &its_name, &sender));
    crate::print(&format!("{name} held"))?;
    Ok(Held {
        name: name.to_owned(),
        socket,
        peer: None,
        echoes,
    })
}

/// Receives in blocking calls until the connection ends.
fn listen(socket: &Socket, name: &str, echoes: &Sender<()>) {
    let mut reader = socket;
    let error = loop {
        match reader.read(&mut [0; 64]) {
            Ok(0) => break None,
            Ok(_) if echoes.send(()).is_ok() => {}
            Ok(_) => return,
            Err(error) => break Some(error),
        }
    };
    say_ended(name, error);
}

fn say_ended(name: &str, error: Option<io::Error>) {
    let why = error.map_or_else(
        || "without error".to_owned(),
        |error| {
            error
                .raw_os_error()
                .map_or_else(|| error.to_string(), errno_name)
        },
    );
    let _ = crate::print(&format!("{name} ended {why}"));
}
