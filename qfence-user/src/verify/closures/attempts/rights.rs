//! Attempts on memory, keys, variables and limits that the command inherits, and on ports.

use std::{
    env,
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

use super::{Tried, raw, tried};
use crate::verify::closures::victims::{PORTS, SECRET, Victims};

/// Attaches the System V shared memory of another process.
pub(crate) fn shared_memory(victims: &Victims) -> Tried {
    raw::attach_shared_memory(victims.memory.ok_or(Errno::ENOSYS)?)
}

/// Finds a key in the session keyring of the caller of `exec`.
pub(crate) fn session_key(victims: &Victims) -> Tried {
    if !victims.has_key {
        return Err(Errno::ENOSYS);
    }
    raw::find_session_key()
}

/// Reads a variable of the caller of `exec`.
pub(crate) fn secret(_: &Victims) -> Tried {
    env::var(SECRET).map(drop).map_err(|_| Errno::ENOENT)
}

/// Requests a file with its memory when it crashes.
pub(crate) fn core_dump(_: &Victims) -> Tried {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    if hard == 0 {
        return Err(Errno::EPERM);
    }
    setrlimit(Resource::RLIMIT_CORE, hard, hard)
}

pub(crate) fn listen(_: &Victims) -> Tried {
    tried(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORTS.0)))
}

pub(crate) fn receive(_: &Victims) -> Tried {
    tried(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORTS.0)))
}

pub(crate) fn listen_where_allowed(_: &Victims) -> Tried {
    tried(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORTS.1)))
}

pub(crate) fn listen_anywhere(_: &Victims) -> Tried {
    tried(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
}
