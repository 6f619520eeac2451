//! Calls of connect() by the thousand, with nothing said afterwards.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tests::probe::{CONNECTED, Flood};

use crate::attempt::errno_name;

/// A destination, and what came of it so far.
struct Tried {
    line: String,
    protocol: Protocol,
    address: SocketAddr,
    endings: BTreeMap<i32, u64>,
}

/// Connects to each destination in a file: once, or again and again as long as `lasting`.
pub(crate) fn run(path: &str, lasting: Duration) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let mut all = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut sockets = Sockets::default();
    loop {
        for tried in &mut all {
            let errno = sockets
                .connect(tried.protocol, tried.address)
                .with_context(|| format!("make a socket for {}", tried.line))?;
            *tried.endings.entry(errno).or_insert(0) += 1;
        }
        if start.elapsed() >= lasting {
            break;
        }
    }
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    for tried in all {
        let name = |errno: i32| match errno {
            0 => CONNECTED.to_owned(),
            errno => errno_name(errno),
        };
        let endings = tried.endings.iter();
        crate::print(&serde_json::to_string(&Flood {
            attempt: tried.line,
            count: tried.endings.values().sum(),
            ms,
            endings: endings.map(|(&errno, &n)| (name(errno), n)).collect(),
        })?)?;
    }
    Ok(())
}

fn parse(line: &str) -> Result<Tried> {
    // Not a probe: those have no port 0, which the policy judges too.
    let (protocol, rest) = line.split_once('/').context("no protocol")?;
    let (address, port) = rest.rsplit_once('/').context("no port")?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => bail!("{line} is not to be connected to"),
    };
    let address = SocketAddr::new(address.parse()?, port.parse()?);
    Ok(Tried {
        line: line.to_owned(),
        protocol,
        address,
        endings: BTreeMap::new(),
    })
}

/// The socket for the next call of each protocol and family.
#[derive(Default)]
struct Sockets(BTreeMap<(i32, bool), Socket>);

impl Sockets {
    /// The error of one call, or 0: a connection that is under way is none. One that was refused leaves a
    /// socket as it was, and a UDP socket can be disconnected, so that it forgets its source address; one of
    /// TCP is used once.
    fn connect(&mut self, protocol: Protocol, address: SocketAddr) -> Result<i32> {
        let key = (protocol.into(), address.is_ipv4());
        let socket = match self.0.remove(&key) {
            Some(socket) => socket,
            None => new(protocol, address)?,
        };
        let errno = match socket.connect(&address.into()) {
            Ok(()) if protocol == Protocol::UDP => {
                disconnect(&socket)?;
                0
            }
            Ok(()) => return Ok(0),
            Err(error) => error.raw_os_error().context("an error of the kernel's")?,
        };
        if Errno::from_raw(errno) == Errno::EINPROGRESS {
            return Ok(0);
        }
        self.0.insert(key, socket);
        Ok(errno)
    }
}

/// Connects a socket to nothing (`AF_UNSPEC`; connect(2)).
fn disconnect(socket: &Socket) -> Result<()> {
    let nothing = SockAddrStorage::zeroed();
    let length = nothing.size_of();
    // SAFETY: zero is `AF_UNSPEC`, of which nothing else is looked at.
    let nothing = unsafe { SockAddr::new(nothing, length) };
    socket.connect(&nothing).context("disconnect a socket")
}

fn new(protocol: Protocol, address: SocketAddr) -> Result<Socket> {
    let kind = match protocol {
        Protocol::TCP => Type::STREAM,
        _ => Type::DGRAM,
    };
    let socket = Socket::new(
        Domain::for_address(address),
        kind.nonblocking(),
        Some(protocol),
    )?;
    if kind == Type::DGRAM {
        socket.set_broadcast(true)?;
    }
    Ok(socket)
}
