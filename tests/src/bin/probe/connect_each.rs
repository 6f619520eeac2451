//! Thousands of calls of connect(), each without any further traffic.

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

/// A destination, and the results of its calls so far.
struct Tried {
    line: String,
    protocol: Protocol,
    address: SocketAddr,
    endings: BTreeMap<i32, u64>,
}

/// Connects to each destination in a file: once, or repeatedly until `lasting` has passed.
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
    // Not parsed as a probe: probes have no port 0, and the policy judges that port too.
    let (protocol, rest) = line.split_once('/').context("no protocol")?;
    let (address, port) = rest.rsplit_once('/').context("no port")?;
    let protocol = match protocol {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        _ => bail!("{line}: the protocol must be tcp or udp"),
    };
    let address = SocketAddr::new(address.parse()?, port.parse()?);
    Ok(Tried {
        line: line.to_owned(),
        protocol,
        address,
        endings: BTreeMap::new(),
    })
}

/// For each protocol and family, the socket for the next call.
#[derive(Default)]
struct Sockets(BTreeMap<(i32, bool), Socket>);

impl Sockets {
    /// Makes one call and returns its error number, or 0. EINPROGRESS counts as success.
    ///
    /// A refused call leaves its socket unchanged, so that it can be used again. A connected UDP socket is disconnected,
    /// which clears its source address; a connected TCP socket is used only once.
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
    // SAFETY: the storage is initialised, and zero is `AF_UNSPEC`, for which the kernel reads nothing else.
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
