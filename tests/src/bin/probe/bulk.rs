//! Sends much data to an echo server and compares it with the data that comes back.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use crate::{
    attempt::{Reached, Unreached},
    connect::udp_socket,
};

/// The amount of data, in bytes.
const AMOUNT: usize = 10_000_000;
/// The data in one datagram, in bytes: little enough that no network on the way must fragment it.
const CHUNK: usize = 1250;
/// The length of the header before it, in bytes: the number of the datagram, and how often it was sent before.
const HEADER: usize = 8;
/// How many datagrams are on their way at a time: as many as fit in the buffers on the way.
const WINDOW: usize = 16;
/// The time after which datagrams without an echo are sent again.
const RESEND: Duration = Duration::from_millis(300);

/// Sends all data over one connection, and receives all of it back.
pub(crate) fn tcp(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut writer = stream.try_clone()?;
    let sent = data();
    let mut back = vec![0; AMOUNT];
    thread::scope(|scope| {
        // If writing fails, reading fails too.
        scope.spawn(|| writer.write_all(&sent));
        stream.read_exact(&mut back)
    })?;
    compare(start, &sent, &back)
}

/// Sends all data in datagrams. Each is sent again until its echo has arrived.
pub(crate) fn udp(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let socket = udp_socket(address)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(RESEND))?;
    let sent = data();
    let chunks: Vec<_> = sent.chunks(CHUNK).collect();
    let mut back = vec![0; sent.len()];
    let mut next = 0;
    let mut missing = BTreeSet::new();
    let mut last_echo = Instant::now();
    let mut datagram = [0; HEADER + CHUNK];
    let mut again = 0;
    while next < chunks.len() || !missing.is_empty() {
        while missing.len() < WINDOW && next < chunks.len() {
            send(&socket, next, 0, chunks[next])?;
            missing.insert(next);
            next += 1;
        }
        match socket.recv(&mut datagram) {
            Ok(length) if length >= HEADER => {
                let (header, content) = datagram[..length].split_at(HEADER);
                let number = header[..4].iter();
                let number = number.fold(0, |high, low| high << 8 | usize::from(*low));
                // A datagram that was sent twice comes back twice.
                if missing.remove(&number) {
                    last_echo = Instant::now();
                    back[number * CHUNK..][..content.len()].copy_from_slice(content);
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if last_echo.elapsed() > limit {
                    return Err(Unreached::Sent);
                }
                again += 1;
                for number in &missing {
                    send(&socket, *number, again, chunks[*number])?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    compare(start, &sent, &back)
}

/// Sends a datagram. The header makes each repetition different: with passt (of March 2023) a checksum can become zero,
/// and over IPv6 the guest must drop such a datagram, and every equal repetition of it.
fn send(socket: &UdpSocket, number: usize, again: u32, chunk: &[u8]) -> io::Result<usize> {
    let number = u32::try_from(number).map_err(io::Error::other)?;
    socket.send(&[&number.to_be_bytes(), &again.to_be_bytes(), chunk].concat())
}

/// Bytes without a repeating pattern, so that repeated or reordered parts are noticed (xorshift).
fn data() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(AMOUNT);
    while bytes.len() < AMOUNT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    bytes.truncate(AMOUNT);
    bytes
}

fn compare(start: Instant, sent: &[u8], back: &[u8]) -> Result<Reached, Unreached> {
    if sent != back {
        let error = format!("{} bytes came back that differ from those sent", back.len());
        return Err(io::Error::other(error).into());
    }
    Ok(Reached {
        after: start.elapsed(),
        reply: Some(format!("{} bytes came back", back.len())),
    })
}

/// An echo server: sends all data back to its sender.
pub(crate) fn echo_connections(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // A peer that has closed the connection is not an error.
            let _ = io::copy(&mut &stream, &mut &stream);
        });
    }
}

/// An echo server for datagrams.
pub(crate) fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 65536];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}
