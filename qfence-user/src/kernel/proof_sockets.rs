//! The sockets that the proof of the hooks of security modules connects to. They are made outside the fence, and the programs
//! refuse them by their names, which contain the fence's random number.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram, UnixListener},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::UnixAddr;
use qfence_common::proof::Token;

use super::manager_names::{Class, ManagerNames};

/// The two sockets, as long as this lives.
#[derive(Debug)]
pub(super) struct ProofSockets {
    _stream: UnixListener,
    _datagram: UnixDatagram,
}

/// Their addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) stream: UnixAddr,
    pub(super) datagram: UnixAddr,
}

impl ProofSockets {
    /// Makes them in the network namespace of this thread, and adds their names.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub(super) fn new(token: Token, names: &mut ManagerNames) -> Result<(Self, Addresses)> {
        let context = "cannot make the sockets of the proof";
        let (stream, datagram) = (name(token, "stream"), name(token, "datagram"));
        for name in [&stream, &datagram] {
            names.exactly(&[b"\0", name.as_bytes()].concat(), Class::Proof);
        }
        let address = |name| SocketAddr::from_abstract_name(name).context(context);
        let sockets = Self {
            _stream: UnixListener::bind_addr(&address(&stream)?).context(context)?,
            _datagram: UnixDatagram::bind_addr(&address(&datagram)?).context(context)?,
        };
        let address = |name: &String| UnixAddr::new_abstract(name.as_bytes()).context(context);
        let addresses = Addresses {
            stream: address(&stream)?,
            datagram: address(&datagram)?,
        };
        Ok((sockets, addresses))
    }
}

fn name(token: Token, kind: &str) -> String {
    format!("qfence-proof-{:016x}-{kind}", token.0)
}
