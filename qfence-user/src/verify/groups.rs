//! Joins multicast groups. The kernel reports a membership to every listener for reports, the host among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::sys::socket::{
    AddressFamily, IpMembershipRequest, Ipv6MembershipRequest, SockFlag, SockType, setsockopt,
    socket, sockopt,
};

use super::calls::{Call, Called};

/// A call for each address family of the private host that joins a group.
#[must_use]
pub fn calls(has_v6: bool) -> Vec<Call> {
    let v4 = ("join 239.1.2.9", "239.1.2.9");
    let v6 = ("join ff02::1:9", "ff02::1:9");
    let both = [Some(v4), has_v6.then_some(v6)];
    both.into_iter()
        .flatten()
        .map(|(attempt, group)| Call {
            attempt,
            words: vec!["join-group".into(), group.into()],
            late: &[],
            closure: "seccomp",
            short: false,
        })
        .collect()
}

/// Joins a group: for IPv4 on the loopback device, for IPv6 on the device that the routes select.
#[must_use]
pub fn join(group: IpAddr) -> Called {
    Called::make(|| match group {
        IpAddr::V4(group) => join_v4(group),
        IpAddr::V6(group) => join_v6(group),
    })
}

fn join_v4(group: Ipv4Addr) -> nix::Result<()> {
    let member = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Every host has the loopback device.
    let request = IpMembershipRequest::new(group, Some(Ipv4Addr::LOCALHOST));
    setsockopt(&member, sockopt::IpAddMembership, &request)
}

fn join_v6(group: Ipv6Addr) -> nix::Result<()> {
    let member = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let request = Ipv6MembershipRequest::new(group);
    setsockopt(&member, sockopt::Ipv6AddMembership, &request)
}
