//! Probes that send packets.

use std::{
    io::{self, IoSlice},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    fcntl::{SpliceFFlags, splice},
    libc,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg},
    unistd::{pipe, write},
};
use socket2::{MsgHdr, SockAddr};

use super::{
    answer,
    method::{Datagram, Sending},
    open::Sockets,
    payload::{self, SEVERAL},
    result::{At, Step, Stop},
    setup,
    spec::Probe,
};

/// Sends, and waits for an answer.
pub(super) fn make(
    sockets: &mut Sockets,
    probe: &Probe,
    (datagram, sending): (Datagram, Sending),
    limit: Duration,
    pause: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Option<String>, Stop> {
    let packet = payload::packet(probe, datagram, sending)?;
    connect(sockets, sending, limit)?;
    if probe.options.pause {
        pause().at(Step::Send)?;
    }
    send(sockets, sending, &packet, limit)?;
    answer::wait(sockets, probe, datagram, limit)
}

fn connect(sockets: &mut Sockets, sending: Sending, limit: Duration) -> Result<(), Stop> {
    match sending {
        Sending::Connected | Sending::Splice => sockets.connect(),
        Sending::Elsewhere => sockets.connect_to_decoy(),
        Sending::Reconnected => {
            sockets.connect_to_decoy()?;
            sockets.disconnect()?;
            sockets.connect()
        }
        Sending::UringConnected => {
            let Sockets {
                socket,
                destination,
                ..
            } = sockets;
            let (socket, destination) = (socket.try_clone().at(Step::Socket)?, destination.clone());
            sockets.ring()?.connect(&socket, &destination, limit)
        }
        _ => Ok(()),
    }
}

fn send(
    sockets: &mut Sockets,
    sending: Sending,
    packet: &[u8],
    limit: Duration,
) -> Result<(), Stop> {
    let to = Some(sockets.destination.clone());
    let to = to.as_ref();
    match sending {
        Sending::SendTo | Sending::Gso | Sending::Large | Sending::Elsewhere => {
            message(sockets, to, packet, 0)
        }
        Sending::Connected | Sending::Reconnected => message(sockets, None, packet, 0),
        Sending::Zerocopy => message(sockets, to, packet, libc::MSG_ZEROCOPY),
        Sending::More => {
            let (first, rest) = packet.split_at(packet.len() / 2);
            message(sockets, to, first, libc::MSG_MORE)?;
            message(sockets, to, rest, 0)
        }
        Sending::Cork => {
            message(sockets, to, packet, 0)?;
            setup::cork(&sockets.socket, false).at(Step::Send)
        }
        Sending::Sendmmsg => messages(sockets, packet),
        Sending::Splice => through_a_pipe(sockets, packet),
        Sending::Uring | Sending::UringConnected => {
            let to = to.filter(|_| sending == Sending::Uring).cloned();
            let socket = sockets.socket.try_clone().at(Step::Socket)?;
            sockets.ring()?.send(&socket, to.as_ref(), packet, limit)
        }
    }
}

/// Sends by sendmsg().
fn message(
    sockets: &Sockets,
    to: Option<&SockAddr>,
    packet: &[u8],
    flags: i32,
) -> Result<(), Stop> {
    let slices = [IoSlice::new(packet)];
    let mut message = MsgHdr::new().with_buffers(&slices);
    if let Some(to) = to {
        message = message.with_addr(to);
    }
    if !sockets.control.is_empty() {
        message = message.with_control(&sockets.control);
    }
    sockets
        .socket
        .sendmsg(&message, flags)
        .map(drop)
        .at(Step::Send)
}

/// Sends by sendmmsg().
fn messages(sockets: &Sockets, packet: &[u8]) -> Result<(), Stop> {
    let to = sockets.destination.as_socket();
    let to = to.map(SockaddrStorage::from);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(SEVERAL, None);
    let slices = [[IoSlice::new(packet)]; SEVERAL];
    let fd = sockets.socket.as_raw_fd();
    let flags = MsgFlags::empty();
    let sent = sendmmsg(fd, &mut headers, &slices, [to; SEVERAL], [], flags);
    sent.map(drop).at(Step::Send)
}

/// Sends by splice().
fn through_a_pipe(sockets: &Sockets, packet: &[u8]) -> Result<(), Stop> {
    let (from, to) = pipe().at(Step::Send)?;
    write(&to, packet).at(Step::Send)?;
    let none = SpliceFFlags::empty();
    let sent = splice(&from, None, &sockets.socket, None, packet.len(), none);
    sent.map(drop).at(Step::Send)
}
