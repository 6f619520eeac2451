//! The sockets that the proof of the hooks of security modules connects to. They are made outside the fence, and the programs
//! refuse them by their names, which contain the fence's random number.

use std::{
    collections::BTreeSet,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
};

use anyhow::{Context as _, Result};
use nix::sys::socket::UnixAddr;
use qfence_common::proof::Token;

use super::manager_names::{Class, ManagerNames};
use crate::confinement::UnixName;

const CONTEXT: &str = "cannot make the sockets of the proof";

/// The two sockets, as long as this lives.
#[derive(Debug)]
pub(super) struct ProofSockets {
    /// Abstract, without the zero byte.
    names: [String; 2],
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
    /// Makes them in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub(super) fn new(token: Token) -> Result<Self> {
        let names = ["stream", "datagram"].map(|kind| name(token, kind));
        let [stream, datagram] = &names;
        let address = |name: &str| SocketAddr::from_abstract_name(name).context(CONTEXT);
        Ok(Self {
            _stream: UnixListener::bind_addr(&address(stream)?).context(CONTEXT)?,
            _datagram: UnixDatagram::bind_addr(&address(datagram)?).context(CONTEXT)?,
            names,
        })
    }

    /// Adds their names to those of managers, with the class of the proof.
    pub(super) fn add_to(&self, names: &mut ManagerNames) {
        for name in &self.names {
            names.exactly(&[b"\0", name.as_bytes()].concat(), Class::Proof);
        }
    }

    /// Their names.
    pub(super) fn names(&self) -> BTreeSet<UnixName> {
        let names = self.names.iter();
        names
            .map(|name| UnixName::Abstract(name.clone().into_bytes()))
            .collect()
    }

    /// Their addresses.
    ///
    /// # Errors
    /// Never: the names are short.
    pub(super) fn addresses(&self) -> Result<Addresses> {
        let address = |name: &str| UnixAddr::new_abstract(name.as_bytes()).context(CONTEXT);
        let [stream, datagram] = &self.names;
        Ok(Addresses {
            stream: address(stream)?,
            datagram: address(datagram)?,
        })
    }
}

fn name(token: Token, kind: &str) -> String {
    format!("qfence-proof-{:016x}-{kind}", token.0)
}
