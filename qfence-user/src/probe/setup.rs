//! Sets the options of a probe on its socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::Socket;

use super::{
    compat,
    method::{Datagram, Method, Opening, Sending},
    open::index,
    payload, raw,
    result::{At, Step, Stop, errno_of},
    spec::Probe,
};

/// Whether an address can be a broadcast address, judging by its last byte.
fn may_be_broadcast(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets()[3] == 255,
        IpAddr::V6(_) => false,
    }
}

/// Sets all options that the probe and its method need.
pub(super) fn set(socket: &Socket, probe: &Probe) -> Result<(), Stop> {
    match probe.method {
        Method::Stream(_, opening) => set_opening(socket, opening)?,
        Method::Datagram(datagram, sending) => {
            if probe.options.compat {
                // If the option is refused, the send reports the error.
                match compat::set_broadcast(socket) {
                    Err(error) if errno_of(&error) == Errno::ENOSYS => {
                        return Err(Stop::Failed(Step::Setsockopt, Errno::ENOSYS));
                    }
                    _ => {}
                }
            } else if may_be_broadcast(probe.destination.address) {
                // Without this option, a send to a broadcast address fails and reports that.
                let _ = socket.set_broadcast(true);
            }
            set_sending(socket, datagram, sending)?;
        }
    }
    set_devices(socket, probe)?;
    set_routes(socket, probe)?;
    let options = &probe.options;
    if options.reuse {
        socket.set_reuse_address(true).at(Step::Setsockopt)?;
        socket.set_reuse_port(true).at(Step::Setsockopt)?;
    }
    if options.freebind {
        setsockopt(socket, sockopt::IpFreebind, &true).at(Step::Setsockopt)?;
    }
    if options.transparent {
        setsockopt(socket, sockopt::IpTransparent, &true).at(Step::Setsockopt)?;
    }
    Ok(())
}

fn set_opening(socket: &Socket, opening: Opening) -> Result<(), Stop> {
    match opening {
        Opening::FastOpenConnect => {
            setsockopt(socket, sockopt::TcpFastOpenConnect, &true).at(Step::Setsockopt)
        }
        _ => Ok(()),
    }
}

fn set_sending(socket: &Socket, datagram: Datagram, sending: Sending) -> Result<(), Stop> {
    match sending {
        Sending::Gso => {
            let segment = i32::try_from(payload::HELLO.len()).unwrap_or(i32::MAX);
            setsockopt(socket, sockopt::UdpGsoSegment, &segment).at(Step::Setsockopt)
        }
        Sending::Cork => cork(socket, true).at(Step::Setsockopt),
        Sending::Zerocopy => {
            let on = 1_i32.to_ne_bytes();
            raw::set_option(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &on).at(Step::Setsockopt)
        }
        // A send buffer for the whole packet, whatever the default of the system.
        Sending::Large if datagram.is_raw() => socket
            .set_send_buffer_size(4 * payload::LARGE)
            .at(Step::Setsockopt),
        _ => Ok(()),
    }
}

/// `UDP_CORK`.
pub(super) fn cork(socket: &Socket, on: bool) -> std::io::Result<()> {
    let value = i32::from(on).to_ne_bytes();
    raw::set_option(socket, libc::SOL_UDP, libc::UDP_CORK, &value)
}

fn set_devices(socket: &Socket, probe: &Probe) -> Result<(), Stop> {
    let options = &probe.options;
    if let Some(device) = &options.device {
        socket
            .bind_device(Some(device.as_bytes()))
            .at(Step::Setsockopt)?;
    }
    let v4 = probe.is_v4_packet();
    if let Some(device) = &options.unicast_if {
        let index = index(device)?.to_be_bytes();
        let (level, name) = if v4 {
            (libc::IPPROTO_IP, libc::IP_UNICAST_IF)
        } else {
            (libc::IPPROTO_IPV6, raw::IPV6_UNICAST_IF)
        };
        raw::set_option(socket, level, name, &index).at(Step::Setsockopt)?;
    }
    match &options.multicast_if {
        Some(device) if v4 => {
            // struct ip_mreqn: the group and the device's address are zero.
            let request = [[0; 4], [0; 4], index(device)?.to_ne_bytes()].concat();
            raw::set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
        }
        Some(device) => socket.set_multicast_if_v6(index(device)?),
        None => Ok(()),
    }
    .at(Step::Setsockopt)
}

fn set_routes(socket: &Socket, probe: &Probe) -> Result<(), Stop> {
    let options = &probe.options;
    let set = |level, name, value: &[u8]| {
        raw::set_option(socket, level, name, value).at(Step::Setsockopt)
    };
    if let Some(first) = options.loose_route {
        set(libc::IPPROTO_IP, libc::IP_OPTIONS, &loose_route(first))?;
    }
    if let Some(first) = options.segment {
        set(
            libc::IPPROTO_IPV6,
            libc::IPV6_RTHDR,
            &segment_routing(first),
        )?;
    }
    if let Some(first) = options.home_route {
        set(libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &home_route(first))?;
    }
    Ok(())
}

/// The option "loose source and record route" (RFC 791) with one address, and padding. The kernel sends the packet to
/// this address and replaces it by the final destination (`__ip_options_compile` and `ip_options_build` in
/// net/ipv4/ip_options.c).
fn loose_route(first: Ipv4Addr) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    const LENGTH: u8 = 7;
    const POINTER: u8 = 4;
    let mut option = vec![NO_OPERATION, 131, LENGTH, POINTER];
    option.extend(first.octets());
    option
}

/// A segment routing header (RFC 8754) with two segments, the last segment first. The kernel fills in the last segment
/// (`ipv6_push_rthdr4` in net/ipv6/exthdrs.c).
fn segment_routing(first: Ipv6Addr) -> Vec<u8> {
    // Next header, length in 8 bytes, type, segments left, last entry, flags, tag.
    let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
    header.extend(Ipv6Addr::UNSPECIFIED.octets());
    header.extend(first.octets());
    header
}

/// A routing header of type 2 (RFC 6275).
fn home_route(first: Ipv6Addr) -> Vec<u8> {
    // Next header, length in 8 bytes, type, segments left, four reserved bytes.
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(first.octets());
    header
}

/// The control data of sendmsg(): `IP_PKTINFO` or `IPV6_PKTINFO` with a device.
pub(super) fn control(probe: &Probe) -> Result<Vec<u8>, Stop> {
    let Some(device) = &probe.options.packet_info else {
        return Ok(Vec::new());
    };
    let index = index(device)?.to_ne_bytes();
    Ok(if probe.is_v4_packet() {
        // struct in_pktinfo: the device, and two addresses that are zero.
        let info = [index, [0; 4], [0; 4]].concat();
        message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
    } else {
        // struct in6_pktinfo: an address that is zero, and the device.
        let info = [&Ipv6Addr::UNSPECIFIED.octets()[..], &index].concat();
        message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
    })
}

/// One control message (cmsg(3)): length, level, type, and content up to a multiple of a word.
fn message(level: i32, kind: i32, content: &[u8]) -> Vec<u8> {
    const WORD: usize = size_of::<usize>();
    let length = WORD + 2 * size_of::<i32>() + content.len();
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(level.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(content);
    message.resize(length.next_multiple_of(WORD), 0);
    message
}

impl Probe {
    /// Whether the packets are IPv4, regardless of the socket: a v4-mapped destination is IPv4.
    fn is_v4_packet(&self) -> bool {
        self.destination.address.to_canonical().is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_are_laid_out_as_the_c_library_does() {
        let device = 7_i32;
        let info = libc::in_pktinfo {
            ipi_ifindex: device,
            ipi_spec_dst: libc::in_addr { s_addr: 0 },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let content = [device.to_ne_bytes(), [0; 4], [0; 4]].concat();
        assert_eq!(content.len(), size_of_val(&info));
        let message = message(libc::IPPROTO_IP, libc::IP_PKTINFO, &content);
        assert_eq!(message.len(), nix::cmsg_space!(libc::in_pktinfo).capacity());
        assert_eq!(message[..8], 28_usize.to_ne_bytes());
        assert_eq!(message[16..20], device.to_ne_bytes());
    }

    #[test]
    fn routing_headers_have_the_length_they_say() {
        let first = Ipv6Addr::LOCALHOST;
        for header in [segment_routing(first), home_route(first)] {
            assert_eq!(header.len(), 8 * (1 + usize::from(header[1])));
        }
        assert_eq!(loose_route(Ipv4Addr::LOCALHOST).len() % 4, 0);
    }
}
