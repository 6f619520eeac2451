//! Sees every packet of the private host, so that nothing has to listen for what may arrive.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket},
};

/// How long nothing must be seen until what was before is over. On the private host, packets are
/// delivered at once.
const QUIET: Duration = Duration::from_millis(10);

/// The most waited for that.
const ROUNDS: usize = 100;

/// Enough of a packet to know it.
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
}

impl Witness {
    /// Starts to look, in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel has no packet sockets.
    pub fn new() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without link-layer headers: a packet begins with that of IP.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            flags,
            SockProtocol::EthAll,
        )
        .context("cannot open a packet socket (CONFIG_PACKET)")?;
        Ok(Self { socket })
    }

    /// Forgets what was seen, once there is no more of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn forget(&self) -> Result<()> {
        self.count().map(drop)
    }

    /// How many packets were seen since the last call, once there are no more of them; those left out
    /// that the kernel sends of its own accord.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn count(&self) -> Result<usize> {
        let context = "cannot read from a packet socket";
        let mut count = 0;
        for _ in 0..ROUNDS {
            let seen = self.take().context(context)?;
            count += seen.into_iter().filter(|counts| *counts).count();
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(QUIET).context(context)?;
            match poll(&mut fds, timeout) {
                Ok(0) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(context),
            }
        }
        Ok(count)
    }

    /// Takes the packets that are there; for each whether it counts.
    fn take(&self) -> io::Result<Vec<bool>> {
        let mut seen = Vec::new();
        let mut packet = [0; SNAP];
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut packet) {
                Ok((length, Some(from))) => {
                    let ether_type = u16::from_be(from.protocol());
                    seen.push(is_of_interest(ether_type, &packet[..length.min(SNAP)]));
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

/// Whether a packet can be somebody's attempt: any IP packet but those that the kernel sends of its
/// own accord. These are the ones by which it finds neighbours and tells of its groups (ARP, IGMP, of
/// ICMPv6 neighbour and listener discovery), and errors: what an error is about is seen itself, if it
/// gets anywhere, and the error for a route that leads nowhere goes back over loopback.
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
        ICMP => Some(matches!(packet.get(header)?, 3 | 4 | 5 | 11 | 12)),
        _ => Some(false),
    }
}

fn is_by_the_kernel_v6(packet: &[u8]) -> Option<bool> {
    let (header, at) = match *packet.get(6)? {
        // Listener reports carry a router alert.
        HOP_BY_HOP => (*packet.get(40)?, 48 + 8 * usize::from(*packet.get(41)?)),
        header => (header, 40),
    };
    let kind = *packet.get(at)?;
    Some(header == ICMPV6 && matches!(kind, 1..=4 | 130..=137 | 143))
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
        assert!(is_of_interest(ETH_P_IP, &v4(ICMP, &[0, 0])));
        assert!(is_of_interest(ETH_P_IP, &v4(ICMP, &[])));
        assert!(is_of_interest(ETH_P_IP, &[]));
        assert!(is_of_interest(ETH_P_IPV6, &v6(ICMPV6, &[128, 0])));
        assert!(is_of_interest(ETH_P_IPV6, &v6(17, &[135, 0])));
        assert!(is_of_interest(ETH_P_IPV6, &v6(HOP_BY_HOP, &[])));
        assert!(is_of_interest(ETH_P_IPV6, &[]));
    }
}
