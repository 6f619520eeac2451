//! Joins multicast groups by every socket option that can.

use std::{
    ffi::c_int,
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::attempt::errno_name;

/// How long the sockets stay members: the kernel sends its report within a second.
const STAY: Duration = Duration::from_secs(2);

/// From linux/in.h: not every C library has them.
const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_JOIN_SOURCE_GROUP: c_int = 46;

/// An option that joins a group: its name, level, number and value.
type JoinOption = (&'static str, c_int, c_int, Vec<u8>);

/// Joins a group, given as `GROUP/DEVICE`. Prints `OPTION joined`, or the option and its error, for each option, and stays
/// a member for a while.
pub(crate) fn run(text: &str) -> Result<()> {
    let (group, device) = text.split_once('/').context("expected GROUP/DEVICE")?;
    let group: IpAddr = group.parse().context("read the group")?;
    let index = if_nametoindex(device).with_context(|| format!("find {device}"))?;
    let mut members = Vec::new();
    for (name, level, option, value) in options(group, index) {
        let family = match level {
            libc::IPPROTO_IPV6 => AddressFamily::Inet6,
            _ => AddressFamily::Inet,
        };
        let member = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        match set(&member, level, option, &value) {
            Ok(()) => crate::print(&format!("{name} joined"))?,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                crate::print(&format!("{name} {}", errno_name(errno)))?;
            }
        }
        members.push(member);
    }
    sleep(STAY);
    Ok(())
}

fn options(group: IpAddr, index: u32) -> Vec<JoinOption> {
    let number = index.to_ne_bytes();
    match group {
        IpAddr::V4(v4) => {
            let group = v4.octets().to_vec();
            let address = |octets: &[u8]| storage(libc::AF_INET, &[&[0, 0], octets].concat());
            // A source address that nobody has. The interface address is left unspecified.
            let source = [192, 0, 2, 99];
            let request = |more: &[u8]| [&group[..], more].concat();
            let level = libc::IPPROTO_IP;
            vec![
                (
                    "IP_ADD_MEMBERSHIP",
                    level,
                    libc::IP_ADD_MEMBERSHIP,
                    request(&[&[0; 4][..], &number].concat()),
                ),
                (
                    "IP_ADD_SOURCE_MEMBERSHIP",
                    level,
                    libc::IP_ADD_SOURCE_MEMBERSHIP,
                    request(&[&[0; 4][..], &source].concat()),
                ),
                (
                    "MCAST_JOIN_GROUP",
                    level,
                    MCAST_JOIN_GROUP,
                    joined(&number, &[address(&group)]),
                ),
                (
                    "MCAST_JOIN_SOURCE_GROUP",
                    level,
                    MCAST_JOIN_SOURCE_GROUP,
                    joined(&number, &[address(&group), address(&source)]),
                ),
            ]
        }
        IpAddr::V6(v6) => {
            let group = v6.octets();
            // Port and flow label come before the address.
            let address = |octets: &[u8]| storage(libc::AF_INET6, &[&[0; 6], octets].concat());
            let level = libc::IPPROTO_IPV6;
            vec![
                (
                    "IPV6_ADD_MEMBERSHIP",
                    level,
                    libc::IPV6_ADD_MEMBERSHIP,
                    [&group[..], &number].concat(),
                ),
                (
                    "MCAST_JOIN_GROUP",
                    level,
                    MCAST_JOIN_GROUP,
                    joined(&number, &[address(&group)]),
                ),
            ]
        }
    }
}

/// A `sockaddr_storage`.
fn storage(family: c_int, rest: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(family)
        .unwrap_or_default()
        .to_ne_bytes()
        .to_vec();
    bytes.extend_from_slice(rest);
    bytes.resize(128, 0);
    bytes
}

/// `struct group_req` or `struct group_source_req`: the device, and addresses aligned to eight bytes.
fn joined(index: &[u8], addresses: &[Vec<u8>]) -> Vec<u8> {
    [index, &[0; 4], &addresses.concat()].concat()
}

fn set(socket: &OwnedFd, level: c_int, option: c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, the size of the value.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
