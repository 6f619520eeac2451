//! Attempts on Unix sockets that were made outside, and on other families of sockets.

use std::{
    env,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixDatagram, UnixStream},
        },
    },
    path::Path,
};

use nix::{
    errno::Errno,
    libc::{self, c_int},
    mount::{MntFlags, umount2},
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::{Tried, errno_of, raw, tried};
use crate::verify::closures::victims::{ABSTRACT, RUNTIME, SCRATCH, SYSTEM_SOCKETS, Victims};

fn stream(path: impl AsRef<Path>) -> Tried {
    tried(UnixStream::connect(path))
}

fn bus() -> String {
    format!("{RUNTIME}/bus")
}

pub(crate) fn user_bus(_: &Victims) -> Tried {
    stream(bus())
}

pub(crate) fn bus_by_symlink(_: &Victims) -> Tried {
    let link = Path::new(SCRATCH).join(format!("link-{}", std::process::id()));
    symlink(bus(), &link).map_err(errno_of)?;
    stream(link)
}

pub(crate) fn bus_by_relative_path(_: &Victims) -> Tried {
    env::set_current_dir(RUNTIME).map_err(errno_of)?;
    stream("bus")
}

/// By the root directory of a process outside, whose mounts have no masks.
pub(crate) fn bus_by_root(victims: &Victims) -> Tried {
    stream(format!("/proc/{}/root{}", victims.pid, bus()))
}

/// With all capabilities over the mounts of a user namespace.
pub(crate) fn bus_unmasked(_: &Victims) -> Tried {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // Without a mask there is nothing to unmount.
    let _ = umount2(bus().as_str(), MntFlags::MNT_DETACH);
    stream(bus())
}

pub(crate) fn private_socket(_: &Victims) -> Tried {
    stream(format!("{RUNTIME}/systemd/private"))
}

pub(crate) fn engine(_: &Victims) -> Tried {
    stream(SYSTEM_SOCKETS[0])
}

pub(crate) fn system_bus(_: &Victims) -> Tried {
    stream(SYSTEM_SOCKETS[1])
}

/// A socket of a desktop, as every program with a window needs it.
pub(crate) fn desktop(_: &Victims) -> Tried {
    stream(format!("{RUNTIME}/wayland-0"))
}

pub(crate) fn by_abstract_name(_: &Victims) -> Tried {
    let address = SocketAddr::from_abstract_name(ABSTRACT).map_err(errno_of)?;
    tried(UnixStream::connect_addr(&address))
}

pub(crate) fn packets(_: &Victims) -> Tried {
    let kind = SockType::SeqPacket;
    let client = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let address = UnixAddr::new(&Path::new(RUNTIME).join("packets"))?;
    connect(client.as_raw_fd(), &address)
}

pub(crate) fn datagram(_: &Victims) -> Tried {
    let client = UnixDatagram::unbound().map_err(errno_of)?;
    tried(client.send_to(b"x", Path::new(RUNTIME).join("datagrams")))
}

fn make(family: c_int, kind: c_int, protocol: c_int) -> Tried {
    let arguments = [family.into(), kind.into(), protocol.into(), 0, 0];
    raw::descriptor(libc::SYS_socket, arguments).map(drop)
}

/// To the hypervisor under this host, and to other guests' services.
pub(crate) fn vsock(_: &Victims) -> Tried {
    make(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
}

/// Packets of a device in a network namespace of its own.
pub(crate) fn packet(_: &Victims) -> Tried {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    make(libc::AF_PACKET, libc::SOCK_DGRAM, 0)
}

/// Messages about the devices of the machine.
pub(crate) fn device_messages(_: &Victims) -> Tried {
    make(
        libc::AF_NETLINK,
        libc::SOCK_DGRAM,
        libc::NETLINK_KOBJECT_UEVENT,
    )
}

/// Any family except those that programs use: the code of most is loaded on demand, and little tested.
pub(crate) fn any_other_family(_: &Victims) -> Tried {
    /// `AF_MAX` of linux/socket.h.
    const FAMILIES: c_int = 46;
    const COMMON: [c_int; 6] = [
        libc::AF_UNSPEC,
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_VSOCK,
    ];
    let kinds = [
        libc::SOCK_STREAM,
        libc::SOCK_DGRAM,
        libc::SOCK_SEQPACKET,
        libc::SOCK_RAW,
    ];
    let mut last = Err(Errno::EAFNOSUPPORT);
    for family in (0..FAMILIES).filter(|family| !COMMON.contains(family)) {
        for kind in kinds {
            match make(family, kind, 0) {
                Ok(()) => return Ok(()),
                // The kernel has no such family, whatever the kind. It looked for a module, which takes a while.
                Err(Errno::EAFNOSUPPORT) => break,
                Err(error) => last = Err(error),
            }
        }
    }
    last
}
