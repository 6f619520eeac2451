//! The system's log, for messages of a process that has no standard error: the daemon at /dev/log.

use std::{io, os::unix::net::UnixDatagram, process};

/// The socket of the daemon.
const SOCKET: &str = "/dev/log";

/// The facility daemon and the severity warning, as a number (RFC 3164).
const PRIORITY: u8 = 3 * 8 + 4;

/// Writes one message. It is lost if the daemon does not take it at once.
///
/// # Errors
/// If there is no daemon, or it does not take the message.
pub fn write(message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SOCKET)?;
    let message = format!("<{PRIORITY}>qfence[{}]: {message}", process::id());
    socket.send(message.as_bytes()).map(drop)
}
