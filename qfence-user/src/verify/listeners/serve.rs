//! The loop of a listener's thread.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Arrival, Service, socket};

/// The time limit for a client to send its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the other end of `control` is closed. Every byte from there is a request for an answer, which is sent
/// when the socket's queue is empty.
pub(super) fn run(
    service: Service,
    socket: &OwnedFd,
    mut control: UnixStream,
    log: &Mutex<Vec<Arrival>>,
) {
    let record = |arrival: Arrival| {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(arrival);
    };
    loop {
        let mut waiting = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut waiting, PollTimeout::NONE).is_err() {
            continue;
        }
        let asked = waiting[1].any().unwrap_or(true);
        match service {
            Service::Udp => answer_datagrams(socket, &record),
            Service::Tcp => accept_all(socket, &record, |_| Vec::new(), greeting),
            Service::Http => accept_all(socket, &record, read_request, page),
        }
        if asked {
            match control.read(&mut [0]) {
                Ok(1) if control.write_all(&[0]).is_ok() => {}
                _ => return,
            }
        }
    }
}

fn greeting(local: SocketAddr) -> String {
    format!("hello from {local}\n")
}

fn page(local: SocketAddr) -> String {
    let body = greeting(local);
    let length = body.len();
    format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn answer_datagrams(socket: &OwnedFd, record: &impl Fn(Arrival)) {
    let Ok(address) = socket::local_address(socket) else {
        return;
    };
    while let Some(datagram) = socket::receive(socket, address.port()) {
        record(datagram.arrival.clone());
        socket::answer(
            socket,
            &datagram,
            greeting(datagram.arrival.local).as_bytes(),
        );
    }
}

fn accept_all(
    socket: &OwnedFd,
    record: &impl Fn(Arrival),
    read: impl Fn(&mut TcpStream) -> Vec<u8>,
    reply: impl Fn(SocketAddr) -> String,
) {
    let Ok(listener) = socket.try_clone().map(TcpListener::from) else {
        return;
    };
    while let Ok((mut stream, peer)) = listener.accept() {
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let bytes = read(&mut stream);
        record(Arrival { peer, local, bytes });
        // A client that closes the connection early is recorded as well.
        let _ = stream.write_all(reply(local).as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// Reads up to the empty line after the headers of a request.
fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(length) if length > 0 => request.extend_from_slice(&chunk[..length]),
            _ => break,
        }
    }
    request
}
