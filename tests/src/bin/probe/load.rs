//! Makes one kind of traffic for some time, and measures its amount.

use std::{
    cell::Cell,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use tests::probe::Load;

use crate::{
    attempt::socket_address,
    connect::{HELLO, udp_socket},
    look_up::{self, Names},
};

/// How many bytes one call writes or reads.
const CHUNK: usize = 64 << 10;
/// How many calls are made between two readings of the clock, which is slow under emulation.
const BATCH: u64 = 16;
/// The length of a datagram in bytes: it needs no fragmentation, whatever headers are added.
const DATAGRAM: usize = 1200;
/// How often a source repeats the number of datagrams that it has sent.
const LAST_WORDS: usize = 3;
/// The time limit for an answer of the peer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes traffic, given as `KIND/ADDRESS/PORT`, until `lasting` has passed.
///
/// # Errors
/// If any of it fails.
pub(crate) fn run(text: &str, lasting: Duration) -> Result<Load> {
    let [kind, address, port] = text.split('/').collect::<Vec<_>>()[..] else {
        bail!("expected KIND/ADDRESS/PORT, not {text}");
    };
    let address = socket_address(address, port.parse().context("read the port")?)?;
    let start = Instant::now();
    // The time in the calls alone, if only that counts.
    let in_calls = Cell::new(Duration::ZERO);
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
        "connect-tcp" => repeat(lasting, 1, || Ok(connect_and_reset(address)?)),
        "connect-tcp-alone" => repeat(lasting, 1, || {
            in_calls.set(in_calls.get() + time_of_connect(address)?);
            Ok(())
        }),
        "refused-tcp" => repeat(lasting, 1, || refused(connect_and_reset(address))),
        "refused-connect-udp" => {
            let socket = udp_socket(address)?;
            repeat(lasting, BATCH, || refused(socket.connect(address)))
        }
        "refused-send-udp" => {
            let socket = udp_socket(address)?;
            repeat(lasting, BATCH, || {
                // A firewall refuses by ICMP: the next call returns the error.
                let _ = socket.send_to(HELLO, address);
                Ok(())
            })
        }
        "look-up" => look_up::one_client(address, Names::Same, lasting),
        "look-up-new" => look_up::one_client(address, Names::New, lasting),
        "look-up-refused" => look_up::one_client(address, Names::Refused, lasting),
        "look-ups" => look_up::many_clients(address, Names::Same, lasting),
        "look-ups-new" => look_up::many_clients(address, Names::New, lasting),
        "look-ups-refused" => look_up::many_clients(address, Names::Refused, lasting),
        "look-up-flood" => look_up::flood(address, lasting),
        "upload-udp" => upload_udp(address, lasting),
        "download-udp" => download_udp(address, lasting),
        other => bail!("unknown kind of traffic: {other}"),
    };
    let count = count.with_context(|| text.to_owned())?;
    let time = match in_calls.get() {
        Duration::ZERO => start.elapsed(),
        in_calls => in_calls,
    };
    Ok(Load {
        load: text.to_owned(),
        count,
        ms: time.as_secs_f64() * 1000.0,
    })
}

/// Calls a function until the time has passed, and returns the number of calls.
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

/// Sends to a sink, and returns the number of bytes that have arrived, as the sink reports it at the end.
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
        .context("read the report of the sink")?;
    let arrived = u64::from_be_bytes(arrived);
    ensure!(arrived == sent, "{sent} bytes sent, {arrived} arrived");
    Ok(arrived)
}

/// Returns the number of bytes received from a source.
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

/// Makes one connection and reads its greeting to the end. The server closes it first, so that no port here stays in
/// TIME_WAIT.
fn greeted(address: SocketAddr) -> Result<()> {
    let mut greeting = Vec::new();
    connect(address)?
        .read_to_end(&mut greeting)
        .context("read the greeting")?;
    ensure!(!greeting.is_empty(), "no greeting");
    Ok(())
}

/// Makes one connection and resets it, so that its port is free at once.
fn connect_and_reset(address: SocketAddr) -> io::Result<()> {
    resetting(address)?.connect(&address.into())
}

/// The same; returns the time that connect() took.
fn time_of_connect(address: SocketAddr) -> io::Result<Duration> {
    let socket = resetting(address)?;
    let address = address.into();
    let start = Instant::now();
    socket.connect(&address)?;
    Ok(start.elapsed())
}

/// A TCP socket whose closing resets its connection.
fn resetting(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// Checks that a call was refused.
fn refused(call: io::Result<()>) -> Result<()> {
    match call {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("the call was not refused"),
    }
}

/// Sends datagrams and returns their number.
fn upload_udp(address: SocketAddr, lasting: Duration) -> Result<u64> {
    let socket = udp_socket(address)?;
    socket.connect(address)?;
    repeat(lasting, BATCH, || {
        ensure!(socket.send(&[0; DATAGRAM])? == DATAGRAM, "sent in part");
        Ok(())
    })
}

/// Returns the number of datagrams that a source has sent in this time; some must have arrived. The speed of receiving
/// here limits the speed of the source.
fn download_udp(address: SocketAddr, lasting: Duration) -> Result<u64> {
    let socket = udp_socket(address)?;
    // Not connected: the source may answer from another of its addresses.
    socket.set_read_timeout(Some(PATIENCE))?;
    let ms = u64::try_from(lasting.as_millis())?;
    socket.send_to(&ms.to_be_bytes(), address)?;
    let mut datagram = [0; DATAGRAM];
    let mut arrived = 0_u64;
    loop {
        match socket.recv(&mut datagram)? {
            DATAGRAM => arrived += 1,
            // The final report of the source.
            8 => break,
            length => bail!("a datagram of {length} bytes"),
        }
    }
    ensure!(arrived > 0, "nothing arrived");
    let [a, b, c, d, e, f, g, h, ..] = datagram;
    Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

/// A source of datagrams: sends to each peer for the requested number of milliseconds, and then reports how many it sent.
pub(crate) fn source_datagrams(socket: &UdpSocket) {
    let mut wish = [0; 8];
    while let Ok((length, peer)) = socket.recv_from(&mut wish) {
        if length != wish.len() {
            continue;
        }
        let lasting = Duration::from_millis(u64::from_be_bytes(wish));
        let sent = repeat(lasting, BATCH, || {
            socket.send_to(&[0; DATAGRAM], peer)?;
            Ok(())
        });
        // The report is repeated, because the peer's buffer may be full.
        for _ in 0..LAST_WORDS {
            thread::sleep(Duration::from_millis(5));
            let _ = socket.send_to(&sent.as_ref().map_or(0, |sent| *sent).to_be_bytes(), peer);
        }
    }
}

/// Sends messages to an echo server and receives them back, one at a time, on one connection.
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

/// A sink: receives all data, and reports the number of bytes at the end.
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
            // After a read error there is no peer to report to.
            ended.and_then(|()| (&stream).write_all(&arrived.to_be_bytes()))
        });
    }
}

/// A source: sends until the peer closes the connection.
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
