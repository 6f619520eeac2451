//! The wires of another network namespace: the veth pairs that have one end there, and the other in this one.

use std::{fs::File, os::fd::AsRawFd as _, thread};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use nix::sched::{CloneFlags, setns};
use thiserror::Error;
use tokio::runtime;

use super::{DeviceError, Kind, kind_of};
use crate::base::mac::Mac;

/// A wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The index of its end in this namespace.
    pub here: u32,
    /// The MAC address of its end in the other namespace.
    pub mac: Mac,
}

/// Why the wires of a namespace cannot be found.
#[derive(Debug, Error)]
pub enum PairError {
    /// The namespace cannot be entered, or the thread for that not be started.
    #[error("cannot enter the network namespace")]
    Enter(#[source] std::io::Error),
    /// Its devices cannot be read.
    #[error("cannot read the network devices of the network namespace")]
    Read(#[from] DeviceError),
    /// What leaves by another device passes no device here.
    #[error(
        "its network device {name} is {kind}, or the other end of it is elsewhere: what leaves by it passes no device of this \
         host's network namespace"
    )]
    NotHere {
        /// The name of the device.
        name: String,
        /// What it is.
        kind: Kind,
    },
}

/// A network device of the other namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct There {
    name: String,
    kind: Kind,
    is_up: bool,
    mac: Option<Mac>,
    /// The index of its other end, and the number of the namespace that this is in.
    other: Option<(u32, i32)>,
}

/// The wires of a network namespace. Each other device that is up must lead nowhere outside by itself, as a bridge does not.
///
/// # Errors
/// If one is not, or they cannot be read.
pub fn pairs(namespace: &File) -> Result<Vec<Pair>, PairError> {
    thread::scope(|scope| {
        // A thread that has entered a namespace is of no use for anything else.
        let thread = thread::Builder::new().spawn_scoped(scope, || read(namespace));
        let ended = thread.map_err(PairError::Enter)?.join();
        let (devices, here) = ended
            .unwrap_or_else(|_| Err(PairError::Enter(std::io::Error::other("it has ended"))))?;
        of(devices, here)
    })
}

/// Reads the devices of a namespace, and its number for that of this process.
fn read(namespace: &File) -> Result<(Vec<There>, Option<i32>), PairError> {
    let here = File::open("/proc/thread-self/ns/net").map_err(PairError::Enter)?;
    let entered = setns(namespace, CloneFlags::CLONE_NEWNET);
    entered.map_err(|errno| PairError::Enter(errno.into()))?;
    let runtime = runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(PairError::Enter)?;
    runtime.block_on(async {
        let (connection, mut handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
        let connection = tokio::spawn(connection);
        let failed = |error| DeviceError::Read(Box::new(error));
        let mut devices = Vec::new();
        let mut links = handle.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(failed)? {
            devices.push(there(&link));
        }
        // The kernel has numbered the namespaces of the other ends while it listed the devices.
        let mut question = NsidMessage::default();
        let descriptor = u32::try_from(here.as_raw_fd()).unwrap_or_default();
        question.attributes.push(NsidAttribute::Fd(descriptor));
        let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
        question.header.flags = NLM_F_REQUEST;
        let mut answers = handle.request(question).map_err(failed)?;
        let answer = answers.next().await;
        connection.abort();
        Ok((devices, answer.as_ref().and_then(number)))
    })
}

/// The number in the answer to the question for that of a namespace.
fn number(answer: &NetlinkMessage<RouteNetlinkMessage>) -> Option<i32> {
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) = &answer.payload else {
        return None;
    };
    let mut numbers = answer.attributes.iter().filter_map(|found| match found {
        NsidAttribute::Id(number) => Some(*number),
        _ => None,
    });
    // A namespace without a number has a negative one.
    numbers.next().filter(|number| *number >= 0)
}

fn there(link: &LinkMessage) -> There {
    let mut device = There {
        name: String::new(),
        kind: kind_of(link),
        is_up: link.header.flags.contains(LinkFlags::Up),
        mac: None,
        other: None,
    };
    let (mut index, mut namespace) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                device.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            LinkAttribute::Link(other) => index = Some(*other),
            LinkAttribute::LinkNetNsId(number) => namespace = Some(*number),
            _ => {}
        }
    }
    device.other = index.zip(namespace);
    device
}

/// The wires among devices. `here` is the number of this namespace.
fn of(devices: Vec<There>, here: Option<i32>) -> Result<Vec<Pair>, PairError> {
    let mut pairs = Vec::new();
    for device in devices {
        let There {
            name,
            kind,
            is_up,
            mac,
            other,
        } = device;
        let leads = other.filter(|(_, namespace)| Some(*namespace) == here);
        match (leads, mac) {
            (Some((here, _)), Some(mac)) if kind == Kind::Veth => pairs.push(Pair { here, mac }),
            _ if is_up && !is_inner(&kind) => return Err(PairError::NotHere { name, kind }),
            _ => {}
        }
    }
    Ok(pairs)
}

/// Whether frames leave the namespace by such a device only through another of its devices, or to a process. Those of tunnels
/// leave by the namespace in which the tunnel was made.
fn is_inner(kind: &Kind) -> bool {
    match kind {
        Kind::Loopback | Kind::Bridge | Kind::Tap | Kind::Tun => true,
        Kind::Other(name) => name == "dummy",
        Kind::Macvtap | Kind::Veth | Kind::Card => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn device(kind: Kind, is_up: bool, other: Option<(u32, i32)>) -> There {
        There {
            name: "eth0".into(),
            kind,
            is_up,
            mac: Some(MAC),
            other,
        }
    }

    #[test]
    fn the_ends_here_are_found() {
        let devices = vec![
            device(Kind::Loopback, true, None),
            device(Kind::Veth, true, Some((7, 0))),
            device(Kind::Bridge, true, None),
            device(Kind::Tap, true, None),
            device(Kind::Other("dummy".into()), true, None),
            // As the kernel makes them in each namespace.
            device(Kind::Other("ipip".into()), false, None),
        ];
        let pair = Pair { here: 7, mac: MAC };
        assert_eq!(of(devices, Some(0)).unwrap(), [pair]);
        assert!(of(Vec::new(), None).unwrap().is_empty());
    }

    #[test]
    fn what_leads_elsewhere_is_an_error() {
        for (kind, other, here) in [
            (Kind::Veth, Some((7, 1)), Some(0)),
            (Kind::Veth, Some((7, 0)), None),
            (Kind::Veth, None, Some(0)),
            (Kind::Card, None, Some(0)),
            (Kind::Other("ipvlan".into()), Some((7, 0)), Some(0)),
            (Kind::Other("vxlan".into()), None, Some(0)),
            (Kind::Macvtap, Some((7, 0)), Some(0)),
        ] {
            let wires = of(vec![device(kind.clone(), true, other)], here);
            assert!(matches!(wires, Err(PairError::NotHere { .. })), "{kind}");
            let down = of(vec![device(kind, false, None)], here);
            assert!(down.unwrap().is_empty());
        }
    }
}
