//! One kind of traffic for some time, and how much of it there was.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::probe::Load;

use crate::{
    attempt::socket_address,
    connect::{HELLO, udp_socket},
};

/// How much is written or read in one call.
const CHUNK: usize = 64 << 10;
/// How many calls are made between two looks at the clock, which is not free under emulation.
const BATCH: u64 = 16;
/// How long the peer may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes traffic written `KIND/ADDRESS/PORT` as long as `lasting`; an error if any of it fails.
pub(crate) fn run(text: &str, lasting: Duration) -> Result<Load> {
    let [kind, address, port] = text.split('/').collect::<Vec<_>>()[..] else {
        bail!("KIND/ADDRESS/PORT, please, and not {text}");
    };
    let address = socket_address(address, port.parse().context("read the port")?)?;
    let start = Instant::now();
    let count = match kind {
        "upload" => upload(address, lasting),
        "download" => download(address, lasting),
        "open" => repeat(lasting, 1, || greeted(address)),
        "round-trip" => round_trips(address, lasting),
        "connect-udp" => {
            let socket = udp_socket(address)?;
            repeat(lasting, BATCH, || Ok(socket.connect(address)?))
        }
        "send-udp" => {
            let socket = udp_socket(address)?;
            repeat(lasting, BATCH, || {
                Ok(socket.send_to(HELLO, address).map(drop)?)
            })
        }
        other => bail!("there is no traffic {other}"),
    };
    Ok(Load {
        load: text.to_owned(),
        count: count.with_context(|| text.to_owned())?,
        ms: start.elapsed().as_secs_f64() * 1000.0,
    })
}

/// How often something can be done.
fn repeat(lasting: Duration, batch: u64, once: impl Fn() -> Result<()>) -> Result<u64> {
    let start = Instant::now();
    let mut count = 0;
    loop {
        for _ in 0..batch {
            once()?;
        }
        count += batch;
        if start.elapsed() >= lasting {
            return Ok(count);
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Bytes that have arrived: what a sink says of them in the end is waited for.
fn upload(address: SocketAddr, lasting: Duration) -> Result<u64> {
    let mut stream = connect(address)?;
    let chunk = [0; CHUNK];
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < lasting {
        stream.write_all(&chunk).context("send")?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut arrived = [0; size_of::<u64>()];
    stream
        .read_exact(&mut arrived)
        .context("what the sink says")?;
    let arrived = u64::from_be_bytes(arrived);
    ensure!(arrived == sent, "{sent} bytes sent, {arrived} arrived");
    Ok(arrived)
}

/// Bytes that a source sends.
fn download(address: SocketAddr, lasting: Duration) -> Result<u64> {
    let mut stream = connect(address)?;
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    let start = Instant::now();
    while start.elapsed() < lasting {
        let length = stream.read(&mut chunk).context("receive")?;
        ensure!(length > 0, "the source has ended");
        received += length as u64;
    }
    Ok(received)
}

/// One connection, until its greeting's end: it is the server that closes it, so that no port is
/// kept from the next one here.
fn greeted(address: SocketAddr) -> Result<()> {
    let mut greeting = Vec::new();
    connect(address)?
        .read_to_end(&mut greeting)
        .context("read the greeting")?;
    ensure!(!greeting.is_empty(), "no greeting");
    Ok(())
}

/// Messages to an echo and back, one at a time, on one connection.
fn round_trips(address: SocketAddr, lasting: Duration) -> Result<u64> {
    let stream = connect(address)?;
    stream.set_nodelay(true)?;
    repeat(lasting, 1, || {
        let mut back = [0; HELLO.len()];
        (&stream).write_all(HELLO)?;
        (&stream).read_exact(&mut back)?;
        ensure!(back == *HELLO, "another message came back");
        Ok(())
    })
}

/// A sink: takes all that comes, and says in the end how many bytes that was.
pub(crate) fn sink(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            let mut arrived = 0_u64;
            let ended = loop {
                match (&stream).read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    Ok(length) => arrived += length as u64,
                    Err(error) => break Err(error),
                }
            };
            // A peer that is gone is told nothing.
            ended.and_then(|()| (&stream).write_all(&arrived.to_be_bytes()))
        });
    }
}

/// A source: sends until the peer has had enough.
pub(crate) fn source(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || -> io::Result<()> {
            let chunk = [0; CHUNK];
            loop {
                (&stream).write_all(&chunk)?;
            }
        });
    }
}
