//! A socket pair over TCP, as libslirp makes it: a listener on a port that the kernel chooses, and a connection to it by
//! the same thread, without any socket option. `MANNER` departs from that.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::libc::{SO_OOBINLINE, SO_REUSEADDR, SO_REUSEPORT, SOL_SOCKET};
use qfence_user::probe::compat::{Manner as Call, set_option};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd as _;

use crate::attempt::{Reached, Unreached};

/// A pair: `pair/LISTEN/CONNECT/MANNER`.
pub(crate) struct Pair {
    listen: IpAddr,
    connect: IpAddr,
    manner: Manner,
}

/// How the pair is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As libslirp makes it.
    Plain,
    /// By MPTCP.
    Mptcp,
    /// Another thread connects, with a socket of its own.
    Thread,
    /// Another thread connects, with a socket of the first one.
    Lent,
    /// The connection begins more than a second after the listener was made.
    Late,
    /// The connecting socket is older than the listener.
    Older,
    /// The listener has an option, like QEMU's listeners.
    Listener(i32),
    /// The connecting socket has an option, like libslirp's connections for a guest.
    Client(i32),
    /// The listener is on this port.
    Port(u16),
}

impl FromStr for Manner {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "plain" => Self::Plain,
            "mptcp" => Self::Mptcp,
            "thread" => Self::Thread,
            "lent" => Self::Lent,
            "late" => Self::Late,
            "older" => Self::Older,
            "listener-reuse-address" => Self::Listener(SO_REUSEADDR),
            "listener-reuse-port" => Self::Listener(SO_REUSEPORT),
            "client-reuse-address" => Self::Client(SO_REUSEADDR),
            "client-out-of-band" => Self::Client(SO_OOBINLINE),
            _ => match text.strip_prefix("port=") {
                Some(port) => Self::Port(port.parse()?),
                None => bail!("no manner of a pair: {text}"),
            },
        })
    }
}

impl Pair {
    pub(crate) fn parse(listen: &str, connect: &str, manner: &str) -> Result<Self> {
        let address = |text: &str| text.parse().with_context(|| format!("read address {text}"));
        Ok(Self {
            listen: address(listen)?,
            connect: address(connect)?,
            manner: manner.parse()?,
        })
    }

    /// Makes the pair, and sends data both ways.
    pub(crate) fn make(&self, limit: Duration) -> Result<Reached, Unreached> {
        let start = Instant::now();
        let older = (self.manner == Manner::Older).then(|| self.socket());
        let listener = self.socket()?;
        if let Manner::Listener(option) = self.manner {
            set(&listener, option)?;
        }
        let port = match self.manner {
            Manner::Port(port) => port,
            _ => 0,
        };
        listener.bind(&SocketAddr::new(self.listen, port).into())?;
        listener.listen(1)?;
        let bound = listener.local_addr()?.as_socket().map_or(0, |at| at.port());
        let to = SocketAddr::new(self.connect, bound);
        if self.manner == Manner::Late {
            thread::sleep(Duration::from_millis(1200));
        }
        let client = match (self.manner, older) {
            (Manner::Thread, _) => in_a_thread(|| {
                let client = self.socket()?;
                client.connect(&to.into())?;
                Ok(client)
            })?,
            (Manner::Lent, _) => {
                let client = self.socket()?;
                in_a_thread(|| client.connect(&to.into()))?;
                client
            }
            (_, older) => {
                let client = older.unwrap_or_else(|| self.socket())?;
                if let Manner::Client(option) = self.manner {
                    set(&client, option)?;
                }
                client.connect(&to.into())?;
                client
            }
        };
        let (served, _) = listener.accept()?;
        drop(listener);
        let reply = exchange(client.into(), served.into(), limit)?;
        Ok(Reached {
            after: start.elapsed(),
            reply: Some(reply),
        })
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(self.listen, 0));
        let protocol = (self.manner == Manner::Mptcp).then_some(Protocol::MPTCP);
        Socket::new_raw(domain, Type::STREAM, protocol)
    }
}

fn in_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let ended = scope.spawn(work).join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread has crashed")))
    })
}

fn set(socket: &Socket, option: i32) -> io::Result<()> {
    let on = 1_i32.to_ne_bytes();
    set_option(Call::Native, socket.as_raw_fd(), SOL_SOCKET, option, &on)
}

/// Sends a word from each end to the other.
fn exchange(mut one: TcpStream, mut other: TcpStream, limit: Duration) -> io::Result<String> {
    const WORDS: [&[u8]; 2] = [b"there ", b"and back"];
    let mut heard = String::new();
    for word in WORDS {
        one.write_all(word)?;
        other.set_read_timeout(Some(limit))?;
        let mut bytes = vec![0; word.len()];
        other.read_exact(&mut bytes)?;
        heard.push_str(&String::from_utf8_lossy(&bytes));
        std::mem::swap(&mut one, &mut other);
    }
    Ok(heard)
}
