//! Much data, there and back: the peer is an echo, and what comes back is compared.

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

/// How much is sent, in bytes.
const AMOUNT: usize = 10_000_000;
/// How much of it is in one datagram: what no network on the way has to cut.
const CHUNK: usize = 1250;
/// What goes before that: the datagram's number, and how often it was sent before.
const HEADER: usize = 8;
/// How many datagrams are on their way at a time: what the buffers on the way hold.
const WINDOW: usize = 16;
/// How long an echo is waited for before what is missing is sent again.
const RESEND: Duration = Duration::from_millis(300);

/// A connection to an echo, all of the data, and all of it back.
pub(crate) fn tcp(address: SocketAddr, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut writer = stream.try_clone()?;
    let sent = data();
    let mut back = vec![0; AMOUNT];
    thread::scope(|scope| {
        // A write that fails shows as a read that does.
        scope.spawn(|| writer.write_all(&sent));
        stream.read_exact(&mut back)
    })?;
    compare(start, &sent, &back)
}

/// All of the data in datagrams, each of which is sent until its echo is there.
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
                // One that was sent twice comes back twice.
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

/// What is sent again is never the same: with passt (of March 2023) a checksum may come out as zero,
/// and over IPv6 the guest has to drop such a datagram, again and again.
fn send(socket: &UdpSocket, number: usize, again: u32, chunk: &[u8]) -> io::Result<usize> {
    let number = u32::try_from(number).map_err(io::Error::other)?;
    socket.send(&[&number.to_be_bytes(), &again.to_be_bytes(), chunk].concat())
}

/// Bytes without a pattern that a repetition or a mix-up would keep (xorshift).
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
        let error = format!("{} bytes came back, not those that were sent", back.len());
        return Err(io::Error::other(error).into());
    }
    Ok(Reached {
        after: start.elapsed(),
        reply: Some(format!("{} bytes came back", back.len())),
    })
}

/// Sends all that comes back to whoever sent it.
pub(crate) fn echo_connections(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            // A peer that is gone is no concern of an echo.
            let _ = io::copy(&mut &stream, &mut &stream);
        });
    }
}

/// The same for datagrams.
pub(crate) fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 65536];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}
