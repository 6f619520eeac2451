//! A UDP socket that one thread connects to two destinations in turn, while another sends by it: some datagrams leave for the
//! address of one and the port of the other.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::probe::Race;

/// The port of nameservers.
const DNS: u16 = 53;

/// How many times the socket is connected before the time is read.
const ROUND: u64 = 200;

/// Runs `SOURCE/NAMESERVER/OTHER/PORT` for this time: the socket is bound to an address, and connected to the port of
/// nameservers of one and to a port of another in turn.
pub(crate) fn run(text: &str, lasting: Duration) -> Result<Race> {
    let expected = "expected SOURCE/NAMESERVER/OTHER/PORT";
    let mut parts = text.split('/');
    let mut part = || parts.next().context(expected);
    let source: IpAddr = part()?.parse()?;
    let nameserver = SocketAddr::new(part()?.parse()?, DNS);
    let other = SocketAddr::new(part()?.parse()?, part()?.parse()?);
    let socket = UdpSocket::bind((source, 0)).context("bind")?;
    for to in [nameserver, other] {
        socket
            .connect(to)
            .with_context(|| format!("connect to {to}"))?;
    }
    socket.set_nonblocking(true)?;
    let end = Instant::now() + lasting;
    let over = AtomicBool::new(false);
    let (sent, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut opened = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let counter = match socket.send(b"torn") {
                    Ok(_) => &sent,
                    Err(_) => &refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        while Instant::now() < end {
            for _ in 0..ROUND {
                // Errors show in what is sent.
                let _ = socket.connect(other);
                let _ = socket.connect(nameserver);
                opened += 2;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    Ok(Race {
        opened,
        sent: sent.into_inner(),
        refused: refused.into_inner(),
        lost: 0,
        reached: 0,
    })
}
