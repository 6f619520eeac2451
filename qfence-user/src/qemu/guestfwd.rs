//! `guestfwd`: an address of the user network that leads to a command or a service.

use std::net::IpAddr;

use super::{
    chardev::{self, Peer},
    clients::address,
    configuration::Item,
    doors::Door,
};

/// A `guestfwd` to a target that QEMU connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The argument as the user wrote it.
    pub argument: String,
    /// The target's address.
    pub address: IpAddr,
    /// The target's port.
    pub port: u16,
}

/// The `guestfwd`s of a user network: targets with an address, and side doors. A command (`cmd:`) runs in the fence, so
/// its sockets are judged like QEMU's.
#[must_use]
pub fn of(item: &Item, items: &[Item]) -> (Vec<Forward>, Vec<Door>) {
    let (mut forwards, mut doors) = (Vec::new(), Vec::new());
    for text in item.parameters.all("guestfwd") {
        let peer = target(text)
            .filter(|target| !target.starts_with("cmd:"))
            .and_then(|target| chardev::by_old_spelling(items, target));
        match peer {
            Some(Peer::Internet { host, port }) => {
                if let (Some(address), Ok(port)) = (address(&host), port.parse()) {
                    forwards.push(Forward {
                        argument: item.argument.clone(),
                        address,
                        port,
                    });
                }
            }
            Some(Peer::Process) => doors.push(Door::guestfwd(&item.argument)),
            Some(Peer::Caller | Peer::Nobody) | None => {}
        }
    }
    (forwards, doors)
}

/// `[tcp]:[address]:port-target`
pub(super) fn target(text: &str) -> Option<&str> {
    let (_protocol, rest) = text.split_once(':')?;
    let (_address, rest) = rest.split_once(':')?;
    let (_port, target) = rest.split_once('-')?;
    Some(target)
}
