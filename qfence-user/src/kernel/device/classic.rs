//! Filters of traffic control at network devices: the way of Linux before 6.6 (clsact and cls_bpf). A filter is attached as
//! long as its device exists in its network namespace. A program that lets a frame go on returns the same number as for
//! tcx, and then the next filter runs.

use std::{io, os::fd::AsFd};

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use super::tcx::{INGRESS, Way};
use crate::kernel::syscall::number;

/// The priority of the filter: before those of any other. Among filters of one priority the last that was added is first.
const PRIORITY: u32 = 1;

/// The handle of the filter, which distinguishes it from others of its priority.
const HANDLE: u32 = 0x7166;

/// `ETH_P_ALL`.
const ALL_FRAMES: u16 = 3;

const QDISC: &str = "clsact";
const FILTER: &str = "bpf";

/// A filter in the chain of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// The id of its program; 0 if it has none.
    pub(super) program: u32,
    /// Whether it has our priority and handle.
    pub(super) is_ours: bool,
}

/// Adds the queueing discipline for filters to a device of the caller's network namespace; returns whether it did not
/// exist.
///
/// # Errors
/// If the kernel has none (`CONFIG_NET_CLS_ACT`), or there is no such device.
pub(super) fn prepare(index: u32) -> Result<bool> {
    let mut message = message(index, TcHandle::CLSACT)?;
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.attributes.push(TcAttribute::Kind(QDISC.into()));
    let request = RouteNetlinkMessage::NewQueueDiscipline(message);
    match ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(false),
        result => {
            result
                .context("the kernel did not make a clsact at the device (CONFIG_NET_CLS_ACT)")?;
            Ok(true)
        }
    }
}

/// Attaches a loaded program to a device of the caller's network namespace.
///
/// # Errors
/// If the kernel rejects it.
pub(super) fn attach(program: &impl AsFd, index: u32, way: Way) -> Result<()> {
    let mut message = of_filter(index, way)?;
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(number(program)?)),
        TcOption::Bpf(TcFilterBpfOption::ProgName("qfence".into())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    let request = RouteNetlinkMessage::NewTrafficFilter(message);
    ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        .map(drop)
        .context(
            "the kernel did not make a filter at the device (CONFIG_NET_CLS_BPF; another filter may have its priority, \
             1: see `tc filter show`)",
        )
}

/// Removes our filter from a device of the caller's network namespace. One that is gone is no error.
///
/// # Errors
/// Errors of netlink.
pub(super) fn detach(index: u32, way: Way) -> Result<()> {
    let request = RouteNetlinkMessage::DelTrafficFilter(of_filter(index, way)?);
    gone_is_well(ask(request, NLM_F_ACK)).context("cannot remove a filter from the device")
}

/// Removes the queueing discipline from a device, unless somebody has filters in it.
///
/// # Errors
/// Errors of netlink.
pub(super) fn clean(index: u32) -> Result<()> {
    for way in Way::BOTH {
        if !chain(index, way)?.is_empty() {
            return Ok(());
        }
    }
    let mut message = message(index, TcHandle::CLSACT)?;
    message.attributes.push(TcAttribute::Kind(QDISC.into()));
    let request = RouteNetlinkMessage::DelQueueDiscipline(message);
    gone_is_well(ask(request, NLM_F_ACK)).context("cannot remove a clsact from the device")
}

/// The filters of one direction of a device in the caller's network namespace, in the order in which they run; none if
/// there is no such device.
///
/// # Errors
/// Errors of netlink.
pub(super) fn chain(index: u32, way: Way) -> io::Result<Vec<Filter>> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(index, parent(way))?);
    let found = match ask(request, NLM_F_DUMP) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        found => found?,
    };
    Ok(found.iter().filter_map(filter).collect())
}

/// The filter that a message describes. Each priority has a message of its own before its filters, without a handle.
fn filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    if handle == 0 {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| {
        if let TcAttribute::Options(options) = attribute {
            Some(options)
        } else {
            None
        }
    });
    let program = options.into_iter().flatten().find_map(|option| {
        if let TcOption::Bpf(TcFilterBpfOption::ProgId(id)) = option {
            Some(*id)
        } else {
            None
        }
    });
    Some(Filter {
        program: program.unwrap_or_default(),
        is_ours: handle == HANDLE && message.header.info >> 16 == PRIORITY,
    })
}

fn of_filter(index: u32, way: Way) -> io::Result<TcMessage> {
    let mut message = message(index, parent(way))?;
    message.header.handle = HANDLE.into();
    message.header.info = PRIORITY << 16 | u32::from(ALL_FRAMES.to_be());
    message.attributes.push(TcAttribute::Kind(FILTER.into()));
    Ok(message)
}

fn message(index: u32, parent: TcHandle) -> io::Result<TcMessage> {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).map_err(io::Error::other)?;
    message.header.parent = parent;
    Ok(message)
}

fn parent(way: Way) -> TcHandle {
    TcHandle {
        major: TcHandle::CLSACT.major,
        minor: if way == INGRESS {
            TcHandle::MIN_INGRESS
        } else {
            TcHandle::MIN_EGRESS
        },
    }
}

fn gone_is_well(result: io::Result<Vec<TcMessage>>) -> io::Result<()> {
    match result {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

/// ENOENT: no such filter. EINVAL: no clsact. ENODEV: no device.
fn is_gone(error: &io::Error) -> bool {
    let errnos = [Errno::ENOENT, Errno::EINVAL, Errno::ENODEV];
    errnos
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// Sends a request in the caller's network namespace, and reads the complete answer.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<TcMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;

    let mut found = Vec::new();
    loop {
        let (received, _) = socket.recv_from_full()?;
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::other(error.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    found.push(filter);
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) | NetlinkPayload::Error(_) => return Ok(found),
                other => {
                    return Err(io::Error::other(format!("an unexpected answer: {other:?}")));
                }
            }
            let length = message.header.length.next_multiple_of(4);
            rest = usize::try_from(length)
                .ok()
                .and_then(|length| rest.get(length..))
                .unwrap_or_default();
        }
    }
}
