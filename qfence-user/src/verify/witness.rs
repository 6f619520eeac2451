//! Sees every packet of the private host, so that no service must listen at the destinations.
//!
//! A packet of an earlier probe can come late: a connection that is not ended yet repeats its segments for a minute, and on
//! a busy machine the kernel delivers a packet long after it was sent. So a packet counts only if none with its
//! [identity](Identity) was seen before the probe.

mod identity;

use std::{
    cell::RefCell,
    collections::HashSet,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use identity::Identity;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

/// No more packets are expected after this time without a packet. The private host delivers packets at once.
const QUIET: Duration = Duration::from_millis(10);

/// The maximum number of such waits.
const ROUNDS: usize = 100;

/// The bytes that are read of each packet, enough to classify and identify it.
const SNAP: usize = 128;

/// EtherTypes (linux/if_ether.h).
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const IGMP: u8 = 2;
const ICMPV6: u8 = 58;

/// A packet socket on all devices of the host.
#[derive(Debug)]
pub struct Witness {
    socket: OwnedFd,
    /// What was seen before the probe that is being made.
    earlier: RefCell<HashSet<Identity>>,
}

impl Witness {
    /// Starts to capture packets in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel does not support packet sockets.
    pub fn new() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without link-layer headers: a packet begins with the IP header.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            flags,
            SockProtocol::EthAll,
        )
        .context("cannot open a packet socket (CONFIG_PACKET)")?;
        Ok(Self {
            socket,
            earlier: RefCell::default(),
        })
    }

    /// Discards the packets seen so far, after waiting until no more arrive.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn forget(&self) -> Result<()> {
        self.count().map(drop)
    }

    /// Waits until no more packets arrive; returns the number of packets since the last call, without those that the
    /// kernel sends on its own, and without late ones of earlier probes.
    ///
    /// # Errors
    /// If the socket cannot be read.
    pub fn count(&self) -> Result<usize> {
        let context = "cannot read from a packet socket";
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            seen.extend(self.take().context(context)?);
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(QUIET).context(context)?;
            match poll(&mut fds, timeout) {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(context),
            }
        }
        let mut earlier = self.earlier.borrow_mut();
        let count = seen.iter().filter(|one| !earlier.contains(one)).count();
        earlier.extend(seen);
        Ok(count)
    }

    /// Reads the available packets; returns the identities of those that can be part of a probe.
    fn take(&self) -> io::Result<Vec<Identity>> {
        let mut seen = Vec::new();
        let mut packet = [0; SNAP];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut packet) {
                Ok((length, Some(from))) => {
                    let ether_type = u16::from_be(from.protocol());
                    let packet = &packet[..length.min(SNAP)];
                    if is_of_interest(ether_type, packet) {
                        seen.push(Identity::of(ether_type, packet));
                    }
                }
                Ok((_, None)) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(seen),
                // A device has gone down.
                Err(Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Whether a packet can be part of an attempt: every IP packet except those that the kernel sends on its own. These
/// are:
///
/// - Neighbour discovery and group membership: ARP, IGMP, and neighbour and listener discovery of ICMPv6.
/// - ICMP errors. The packet that caused an error is seen itself if it arrives, and the error for an unreachable route
///   is sent over loopback.
/// - Answers to pings. The probe itself detects its answer. (The kernel shows no packet socket a ping that it loops
///   back to its groups, `packet_rcv` in net/packet/af_packet.c, and the answer may be dropped on the way.)
fn is_of_interest(ether_type: u16, packet: &[u8]) -> bool {
    let by_the_kernel = match ether_type {
        ETH_P_IP => is_by_the_kernel_v4(packet),
        ETH_P_IPV6 => is_by_the_kernel_v6(packet),
        _ => Some(true),
    };
    !by_the_kernel.unwrap_or(false)
}

fn is_by_the_kernel_v4(packet: &[u8]) -> Option<bool> {
    let header = 4 * usize::from(packet.first()? & 0xf);
    match *packet.get(9)? {
        IGMP => Some(true),
        ICMP => Some(matches!(packet.get(header)?, 0 | 3 | 4 | 5 | 11 | 12)),
        _ => Some(false),
    }
}

fn is_by_the_kernel_v6(packet: &[u8]) -> Option<bool> {
    let (header, at) = match *packet.get(6)? {
        // Listener reports have a router alert option.
        HOP_BY_HOP => (*packet.get(40)?, 48 + 8 * usize::from(*packet.get(41)?)),
        header => (header, 40),
    };
    let kind = *packet.get(at)?;
    Some(header == ICMPV6 && matches!(kind, 1..=4 | 129..=137 | 143))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        (packet[0], packet[9]) = (0x45, protocol);
        packet.extend_from_slice(rest);
        packet
    }

    fn v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[6] = next_header;
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn what_the_kernel_says_by_itself_does_not_count() {
        assert!(!is_of_interest(ETH_P_IP, &v4(IGMP, &[0x22])));
        assert!(!is_of_interest(ETH_P_IP, &v4(ICMP, &[3, 3])));
        assert!(!is_of_interest(ETH_P_IP, &v4(ICMP, &[0, 0])));
        assert!(!is_of_interest(ETH_P_IPV6, &v6(ICMPV6, &[1, 0])));
        assert!(!is_of_interest(0x0806, &[0; 28]));
        let solicitation = v6(ICMPV6, &[135, 0]);
        assert!(!is_of_interest(ETH_P_IPV6, &solicitation));
        let report = v6(HOP_BY_HOP, &[ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0]);
        assert!(!is_of_interest(ETH_P_IPV6, &report));
    }

    #[test]
    fn everything_else_counts_what_is_cut_short_too() {
        assert!(is_of_interest(ETH_P_IP, &v4(17, &[3, 3])));
        assert!(is_of_interest(ETH_P_IP, &v4(ICMP, &[8, 0])));
        assert!(is_of_interest(ETH_P_IP, &v4(ICMP, &[])));
        assert!(is_of_interest(ETH_P_IP, &[]));
        assert!(is_of_interest(ETH_P_IPV6, &v6(ICMPV6, &[128, 0])));
        assert!(is_of_interest(ETH_P_IPV6, &v6(17, &[135, 0])));
        assert!(is_of_interest(ETH_P_IPV6, &v6(HOP_BY_HOP, &[])));
        assert!(is_of_interest(ETH_P_IPV6, &[]));
    }
}
