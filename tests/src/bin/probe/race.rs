//! A listener that opens and closes a port as fast as it can, while another thread sends to that port.

use std::{
    io::{self, stdin},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};
use tests::probe::Race;

/// How long the listener is open, and how long a connection may take.
const OPEN: Duration = Duration::from_micros(200);
const CONNECT: Duration = Duration::from_millis(20);

/// How long each listens in turn.
const OWN_TURN: Duration = Duration::from_micros(60);
const HOSTS_TURN: Duration = Duration::from_micros(60);

/// The kind of the listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// TCP, opened and closed.
    Tcp,
    /// TCP in a group (SO_REUSEPORT), always open.
    TcpGroup,
    /// UDP, opened and closed.
    Udp,
    /// UDP that shares its port (SO_REUSEADDR), opened and closed.
    UdpShared,
}

impl Kind {
    fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::TcpGroup)
    }

    fn listen(self, to: SocketAddr) -> io::Result<Socket> {
        let kind = if self.is_tcp() {
            Type::STREAM
        } else {
            Type::DGRAM
        };
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        match self {
            Self::Tcp | Self::UdpShared => socket.set_reuse_address(true)?,
            Self::TcpGroup => socket.set_reuse_port(true)?,
            Self::Udp => {}
        }
        socket.set_nonblocking(true)?;
        socket.bind(&to.into())?;
        if self.is_tcp() {
            socket.listen(64)?;
        }
        Ok(socket)
    }

    /// Takes what has arrived.
    fn drain(self, socket: &Socket) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
        if self.is_tcp() {
            while socket.accept().is_ok() {}
        } else {
            while socket.recv(&mut buffer).is_ok() {}
        }
    }
}

/// Lets a listener and the host's socket, which is standard input and bound to the same port, take turns at perfect
/// moments: one thread ends one and begins the other.
fn turns(to: SocketAddr, end: Instant) -> Result<Race> {
    let own = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    own.set_reuse_address(true)?;
    own.set_nonblocking(true)?;
    own.bind(&to.into()).context("bind")?;
    let hosts = Socket::from(stdin().as_fd().try_clone_to_owned()?);
    hosts.set_nonblocking(true)?;
    let over = AtomicBool::new(false);
    let (opened, reached) = (AtomicU64::new(0), AtomicU64::new(0));
    let (sent, refused, lost) = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (socket, turn, accepted) in
                    [(&own, OWN_TURN, None), (&hosts, HOSTS_TURN, Some(&reached))]
                {
                    if socket.listen(64).is_err() {
                        continue;
                    }
                    opened.fetch_add(accepted.is_none().into(), Ordering::Relaxed);
                    let begun = Instant::now();
                    while begun.elapsed() < turn {
                        let is_any = socket.accept().is_ok();
                        if let Some(accepted) = accepted {
                            accepted.fetch_add(is_any.into(), Ordering::Relaxed);
                        }
                    }
                    // A listener that is shut down keeps its port, and can listen again.
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
        });
        let counts = send(Kind::Tcp, to, end);
        over.store(true, Ordering::Relaxed);
        counts
    });
    Ok(Race {
        opened: opened.load(Ordering::Relaxed),
        sent,
        refused,
        lost,
        reached: reached.load(Ordering::Relaxed),
    })
}

/// Runs `KIND/PORT` on loopback for this time.
pub(crate) fn run(text: &str, lasting: Duration) -> Result<Race> {
    let (kind, port) = text.split_once('/').context("expected KIND/PORT")?;
    if kind == "tcp-turns" {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
        return turns(to, Instant::now() + lasting);
    }
    let kind = match kind {
        "tcp" => Kind::Tcp,
        "tcp-group" => Kind::TcpGroup,
        "udp" => Kind::Udp,
        "udp-shared" => Kind::UdpShared,
        _ => bail!("no kind of a race: {kind}"),
    };
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let end = Instant::now() + lasting;
    let over = AtomicBool::new(false);
    let opened = AtomicU64::new(0);
    let (sent, refused, lost) = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let Ok(socket) = kind.listen(to) else {
                    continue;
                };
                opened.fetch_add(1, Ordering::Relaxed);
                let close = Instant::now() + OPEN;
                while Instant::now() < close
                    || kind == Kind::TcpGroup && !over.load(Ordering::Relaxed)
                {
                    kind.drain(&socket);
                    thread::yield_now();
                }
                drop(socket);
                thread::sleep(OPEN);
            }
        });
        let counts = send(kind, to, end);
        over.store(true, Ordering::Relaxed);
        counts
    });
    Ok(Race {
        opened: opened.load(Ordering::Relaxed),
        sent,
        refused,
        lost,
        reached: 0,
    })
}

/// Connects or sends until then. Returns the numbers of those that were sent, refused, and without an answer.
fn send(kind: Kind, to: SocketAddr, end: Instant) -> (u64, u64, u64) {
    let (mut sent, mut refused, mut lost) = (0, 0, 0);
    while Instant::now() < end {
        let done = if kind.is_tcp() {
            TcpStream::connect_timeout(&to, CONNECT).map(drop)
        } else {
            Socket::new(Domain::IPV4, Type::DGRAM, None)
                .and_then(|socket| socket.send_to(b"race", &to.into()).map(drop))
        };
        match done {
            Ok(()) => sent += 1,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => lost += 1,
            Err(_) => refused += 1,
        }
    }
    (sent, refused, lost)
}
