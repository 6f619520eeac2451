//! Sends one DNS query and reads the first address in the answer.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    attempt::{Reached, Unreached},
    connect::{receive, udp_socket},
};

/// The length of a message's header.
pub(crate) const HEADER: usize = 12;

pub(crate) fn udp(server: SocketAddr, name: &str, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let socket = udp_socket(server)?;
    socket.send_to(&question(name), server)?;
    let reply = address_in(&receive(&socket, limit)?);
    Ok(Reached {
        after: start.elapsed(),
        reply: Some(reply),
    })
}

pub(crate) fn tcp(server: SocketAddr, name: &str, limit: Duration) -> Result<Reached, Unreached> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let question = question(name);
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(Reached {
        after: start.elapsed(),
        reply: Some(address_in(&answer)),
    })
}

fn question(name: &str) -> Vec<u8> {
    question_of(name, 1)
}

/// A query for a name's records of a type, recursion desired.
pub(crate) fn question_of(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0x51, 0xfe, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, kind, 0, 1]);
    message
}

/// The first IPv4 address in an answer, or the reason why there is none.
fn address_in(message: &[u8]) -> String {
    let code = message.get(3).map_or(0, |flags| flags & 0xf);
    if code != 0 {
        return format!("rcode {code}");
    }
    first_address(message).map_or_else(|| "no address".to_owned(), |address| address.to_string())
}

fn first_address(message: &[u8]) -> Option<Ipv4Addr> {
    let u16_at = |at: usize| {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let mut at = HEADER;
    for _ in 0..u16_at(4)? {
        at = after_name(message, at)? + 4;
    }
    for _ in 0..u16_at(6)? {
        at = after_name(message, at)?;
        let (kind, length) = (u16_at(at)?, u16_at(at + 8)?);
        at += 10;
        if kind == 1 {
            let bytes: [u8; 4] = message.get(at..at + 4)?.try_into().ok()?;
            return Some(bytes.into());
        }
        at += usize::from(length);
    }
    None
}

/// The offset after the name that begins at `at`.
pub(crate) fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A compression pointer ends the name here.
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}
