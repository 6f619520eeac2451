//! The wires of another network namespace: the veth pairs that have one end there, and the other in this one.

use std::{fs::File, os::fd::AsRawFd as _, thread, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use nix::sched::{CloneFlags, setns};
use thiserror::Error;
use tokio::{runtime, time::timeout};

use super::{DeviceError, Kind, kind_of};
use crate::base::mac::Mac;

/// The most devices of a namespace of others, who can make any number.
const MOST: usize = 1024;

/// How long they may be read. Who makes devices meanwhile can make it last.
const PATIENCE: Duration = Duration::from_secs(2);

/// A wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The index of its end in this namespace.
    pub here: u32,
    /// The index of its end in the other namespace.
    pub there: u32,
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
    /// It has too many.
    #[error("the network namespace has more than {MOST} network devices")]
    Many,
    /// Reading them takes too long.
    #[error("the network devices of the network namespace cannot be read within {} seconds", PATIENCE.as_secs())]
    Slow,
    /// What leaves by another device passes no device here.
    #[error(
        "its network device {name} is {kind}, or the other end of it is elsewhere: what leaves by it, or would if it were set up, \
         passes no device of this host's network namespace"
    )]
    NotHere {
        /// The name of the device.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// The end here does not lead back.
    #[error("its network device {0} was changed while it was looked at")]
    Changed(String),
}

/// A network device of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct There {
    index: u32,
    name: String,
    kind: Kind,
    is_up: bool,
    mac: Option<Mac>,
    /// The index of its other end.
    other: Option<u32>,
    /// The number of the namespace that this is in, if it is another.
    netns: Option<i32>,
}

/// The devices of a namespace, and its number for another one, if it has one.
#[derive(Clone, Debug, Default)]
struct Devices {
    all: Vec<There>,
    number: Option<i32>,
}

/// The wires of a network namespace. Each other device must lead nowhere outside by itself, as a bridge does not.
///
/// # Errors
/// If one is not, or they cannot be read.
pub fn pairs(namespace: &File) -> Result<Vec<Pair>, PairError> {
    let here = File::open("/proc/thread-self/ns/net").map_err(PairError::Enter)?;
    let there = read_apart(namespace, &here, MOST)?;
    let wires = of(&there)?;
    // Those of this namespace are as many as the host has.
    let ends = read_apart(&here, namespace, usize::MAX)?;
    for (wire, name) in &wires {
        let end = ends.all.iter().find(|device| device.index == wire.here);
        let leads_back = end.is_some_and(|end| {
            let is_there = end.netns.is_some() && end.netns == ends.number;
            end.kind == Kind::Veth && end.other == Some(wire.there) && is_there
        });
        if !leads_back {
            return Err(PairError::Changed(name.clone()));
        }
    }
    Ok(wires.into_iter().map(|(wire, _)| wire).collect())
}

/// Reads the devices of a namespace, and the number of another one for it.
fn read_apart(namespace: &File, other: &File, most: usize) -> Result<Devices, PairError> {
    thread::scope(|scope| {
        // A thread that has entered a namespace is of no use for anything else.
        let thread = thread::Builder::new().spawn_scoped(scope, || read(namespace, other, most));
        let ended = thread.map_err(PairError::Enter)?.join();
        ended.unwrap_or_else(|_| Err(PairError::Enter(std::io::Error::other("it has ended"))))
    })
}

fn read(namespace: &File, other: &File, most: usize) -> Result<Devices, PairError> {
    let entered = setns(namespace, CloneFlags::CLONE_NEWNET);
    entered.map_err(|errno| PairError::Enter(errno.into()))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(PairError::Enter)?;
    let found = runtime.block_on(async { timeout(PATIENCE, dump(other, most)).await });
    found.unwrap_or(Err(PairError::Slow))
}

/// Reads the devices of the namespace of this thread, and the number of another one for it.
async fn dump(other: &File, most: usize) -> Result<Devices, PairError> {
    let (connection, mut handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
    let connection = tokio::spawn(connection);
    let failed = |error| DeviceError::Read(Box::new(error));
    let mut found = Devices::default();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.map_err(failed)? {
        if found.all.len() == most {
            return Err(PairError::Many);
        }
        found.all.push(there(&link));
    }
    // The kernel has numbered the namespaces of the other ends while it listed the devices.
    let mut question = NsidMessage::default();
    let descriptor = u32::try_from(other.as_raw_fd()).unwrap_or_default();
    question.attributes.push(NsidAttribute::Fd(descriptor));
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    question.header.flags = NLM_F_REQUEST;
    let mut answers = handle.request(question).map_err(failed)?;
    let answer = answers.next().await;
    connection.abort();
    found.number = answer.as_ref().and_then(number);
    Ok(found)
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
        index: link.header.index,
        name: String::new(),
        kind: kind_of(link),
        is_up: link.header.flags.contains(LinkFlags::Up),
        mac: None,
        other: None,
        netns: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                device.mac = <[u8; 6]>::try_from(&bytes[..]).ok().map(Mac);
            }
            LinkAttribute::Link(other) => device.other = Some(*other),
            LinkAttribute::LinkNetNsId(number) => device.netns = Some(*number),
            _ => {}
        }
    }
    device
}

/// The wires among the devices of a namespace, with the names of their ends there.
fn of(found: &Devices) -> Result<Vec<(Pair, String)>, PairError> {
    let mut pairs = Vec::new();
    for device in &found.all {
        let leads_here = device.netns.is_some() && device.netns == found.number;
        match (device.other, device.mac) {
            (Some(here), Some(mac)) if device.kind == Kind::Veth && leads_here => {
                let there = device.index;
                pairs.push((Pair { here, there, mac }, device.name.clone()));
            }
            _ if stays_inside(device, &found.all) => {}
            _ => {
                return Err(PairError::NotHere {
                    name: device.name.clone(),
                    kind: device.kind.clone(),
                });
            }
        }
    }
    Ok(pairs)
}

/// Whether frames leave the namespace by such a device only through another of its devices `all`, or to a process. Those of
/// tunnels leave by the namespace in which the tunnel was made. Who is in the namespace can set up a device that is down.
fn stays_inside(device: &There, all: &[There]) -> bool {
    match &device.kind {
        Kind::Loopback | Kind::Bridge | Kind::Tap | Kind::Tun => true,
        Kind::Other(name) if name == "dummy" => true,
        Kind::Other(_) => !device.is_up && FALLBACKS.contains(&&*device.name),
        Kind::Veth => {
            let is_end = |end: &There| {
                Some(end.index) == device.other
                    && end.other == Some(device.index)
                    && end.kind == Kind::Veth
                    && end.netns.is_none()
            };
            device.netns.is_none() && all.iter().any(is_end)
        }
        Kind::Macvtap | Kind::Card => false,
    }
}

/// The tunnels that the kernel makes in each namespace. They cannot be moved, so they are of it.
const FALLBACKS: [&str; 9] = [
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0",
];

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn device(index: u32, kind: Kind, other: Option<u32>, netns: Option<i32>) -> There {
        There {
            index,
            name: format!("n{index}"),
            kind,
            is_up: true,
            mac: Some(MAC),
            other,
            netns,
        }
    }

    fn fallback(name: &str, is_up: bool) -> There {
        There {
            name: name.into(),
            is_up,
            ..device(20, Kind::Other("ipip".into()), None, None)
        }
    }

    fn wires(all: Vec<There>, number: Option<i32>) -> Result<Vec<Pair>, PairError> {
        let found = of(&Devices { all, number })?;
        Ok(found.into_iter().map(|(pair, _)| pair).collect())
    }

    #[test]
    fn the_ends_here_are_found() {
        let devices = vec![
            device(1, Kind::Loopback, None, None),
            device(2, Kind::Veth, Some(7), Some(0)),
            device(3, Kind::Bridge, None, None),
            device(4, Kind::Tap, None, None),
            device(5, Kind::Other("dummy".into()), None, None),
            // Both ends of one are there.
            device(8, Kind::Veth, Some(9), None),
            device(9, Kind::Veth, Some(8), None),
            fallback("tunl0", false),
        ];
        let pair = Pair {
            here: 7,
            there: 2,
            mac: MAC,
        };
        assert_eq!(wires(devices, Some(0)).unwrap(), [pair]);
        assert!(wires(Vec::new(), None).unwrap().is_empty());
    }

    #[test]
    fn what_leads_elsewhere_is_an_error() {
        for (kind, other, netns, number) in [
            (Kind::Veth, Some(7), Some(1), Some(0)),
            (Kind::Veth, Some(7), Some(0), None),
            (Kind::Veth, Some(7), None, None),
            (Kind::Veth, None, None, Some(0)),
            (Kind::Card, None, None, Some(0)),
            (Kind::Other("ipvlan".into()), Some(7), Some(0), Some(0)),
            (Kind::Other("vxlan".into()), None, None, Some(0)),
            (Kind::Macvtap, Some(7), Some(0), Some(0)),
        ] {
            for is_up in [true, false] {
                let mut device = device(2, kind.clone(), other, netns);
                device.is_up = is_up;
                let wires = wires(vec![device], number);
                assert!(matches!(wires, Err(PairError::NotHere { .. })), "{kind}");
            }
        }
        assert!(wires(vec![fallback("tunl0", true)], Some(0)).is_err());
        assert!(wires(vec![fallback("other0", false)], Some(0)).is_err());
        // Its other end leads elsewhere.
        let ends = vec![
            device(8, Kind::Veth, Some(9), None),
            device(9, Kind::Veth, Some(8), Some(1)),
        ];
        assert!(wires(ends, Some(0)).is_err());
    }
}
