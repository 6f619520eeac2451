//! Probes that connect.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::Socket;

use super::{
    method::Opening,
    open::Sockets,
    payload::HELLO,
    result::{At, Step, Stop, errno_of},
};

/// The maximum number of bytes that are read of an answer.
const ENOUGH: u64 = 4096;

/// Connects, and reads from the peer until it closes the connection or the time limit is reached.
///
/// Bytes are sent only by methods that send the first bytes to connect, and after a pause.
pub(super) fn make(
    sockets: &mut Sockets,
    opening: Opening,
    limit: Duration,
    pause: Option<&mut dyn FnMut() -> io::Result<()>>,
) -> Result<Option<String>, Stop> {
    match opening {
        Opening::Connect => sockets.connect()?,
        Opening::Reconnected => {
            sockets.connect_to_decoy()?;
            sockets.disconnect()?;
            sockets.connect()?;
        }
        Opening::FastOpen => {
            let (socket, to) = (&sockets.socket, &sockets.destination);
            match socket.send_to_with_flags(HELLO, to, libc::MSG_FASTOPEN) {
                // The call waits for the connection, and can return after the peer has finished.
                Err(error) if is_reset(errno_of(&error)) => {}
                result => {
                    sent(result)?;
                    established(&sockets.socket, limit)?;
                }
            }
        }
        Opening::FastOpenConnect => {
            sockets.connect()?;
            sent((&sockets.socket).write(HELLO))?;
            established(&sockets.socket, limit)?;
        }
        Opening::Uring => {
            let (destination, socket) = (sockets.destination.clone(), sockets.socket.try_clone());
            let socket = socket.at(Step::Socket)?;
            sockets.ring()?.connect(&socket, &destination, limit)?;
        }
    }
    if let Some(pause) = pause {
        pause().at(Step::Send)?;
        sent((&sockets.socket).write(HELLO))?;
    }
    let mut answer = Vec::new();
    // The connection is established; a later error does not change that.
    let _ = (&sockets.socket).take(ENOUGH).read_to_end(&mut answer);
    Ok((!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned()))
}

/// Waits until the connection is established: bytes for the first packet are accepted before that.
fn established(socket: &Socket, limit: Duration) -> Result<(), Stop> {
    let mut writable = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    poll(&mut writable, limit).at(Step::Connect)?;
    // In this order: a reset between the two calls leaves its error before it takes the peer away (`tcp_reset` in
    // net/ipv4/tcp_input.c).
    let has_peer = socket.peer_addr().is_ok();
    let error = socket.take_error().at(Step::Connect)?;
    is_established(has_peer, error.as_ref().map(errno_of))
}

/// Whether a socket with this peer and this pending error is or was connected.
///
/// Until the connection is established, the socket has no peer (`inet_getname` in net/ipv4/af_inet.c).
fn is_established(has_peer: bool, error: Option<Errno>) -> Result<(), Stop> {
    match error {
        Some(errno) if is_reset(errno) => Ok(()),
        Some(errno) => Err(Stop::Failed(Step::Connect, errno)),
        None if has_peer => Ok(()),
        None => Err(Stop::Timeout(Step::Connect)),
    }
}

/// Whether this error means that the connection was established and is closed: the peer finished before this check.
/// Before that, a reset is ECONNREFUSED (`tcp_reset` in net/ipv4/tcp_input.c).
fn is_reset(errno: Errno) -> bool {
    matches!(errno, Errno::EPIPE | Errno::ECONNRESET)
}

/// The result of sending the first bytes, which may wait for the connection.
fn sent(result: io::Result<usize>) -> Result<(), Stop> {
    match result {
        Err(error) if matches!(errno_of(&error), Errno::EINPROGRESS | Errno::EAGAIN) => {
            Err(Stop::Timeout(Step::Connect))
        }
        result => result.map(drop).at(Step::Send),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_finished_early_was_reached() {
        for errno in [Errno::EPIPE, Errno::ECONNRESET] {
            assert_eq!(is_established(false, Some(errno)), Ok(()));
        }
        assert_eq!(is_established(true, None), Ok(()));
    }

    #[test]
    fn a_socket_without_a_peer_was_not_connected() {
        assert_eq!(
            is_established(false, None),
            Err(Stop::Timeout(Step::Connect))
        );
        let refused = Err(Stop::Failed(Step::Connect, Errno::ECONNREFUSED));
        assert_eq!(is_established(false, Some(Errno::ECONNREFUSED)), refused);
    }
}
