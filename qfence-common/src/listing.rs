//! The sockets of processes that ran before their fence was attached, and how those are told that opened a connection.

/// A socket that a process has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenSocket {
    /// The id of the cgroup in which the socket was made.
    pub cgroup: u64,
    /// The cookie of its network namespace.
    pub netns: u64,
    /// The process.
    pub pid: u32,
    /// The number of the descriptor.
    pub fd: u32,
    /// `sk_family`.
    pub family: u32,
    /// `sk_type`.
    pub kind: u32,
    /// `sk_protocol`.
    pub protocol: u32,
    /// `skc_num`: the local port.
    pub port: u32,
    /// `skc_state`.
    pub state: u32,
    /// 1 if it was made in the fence's cgroup or below; otherwise 0.
    pub is_of_the_fence: u32,
}

const _: () = assert!(size_of::<OpenSocket>() == 48 && align_of::<OpenSocket>() == 8);

/// In [`OpenSocket::family`]: the file is no socket, but a device that makes networks which the fence does not see.
/// [`OpenSocket::kind`] is its major number, and [`OpenSocket::port`] its minor number.
pub const DEVICE: u32 = 0;

/// A question about a TCP socket: who opened its connection? It is the content of a packet with which the program
/// [`crate::abi::NOTE_OPENED`] is run. The program looks up the socket by its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// The place of the packet's Ethernet header. Zero.
    pub header: [u8; 16],
    /// The address of the socket itself, v4-mapped if it is of IPv4.
    pub local: [u8; 16],
    /// The address of its peer.
    pub remote: [u8; 16],
    /// `sk_cookie` of the socket; 0 for any.
    pub cookie: u64,
    /// Its own port, in network order.
    pub local_port: [u8; 2],
    /// The port of its peer, in network order.
    pub remote_port: [u8; 2],
    /// One of [`TELL`], [`NOTE`] and [`NOTE_ANYWAY`].
    pub wish: u32,
}

const _: () = assert!(size_of::<Question>() == 64 && align_of::<Question>() == 8);

/// In [`Question::wish`]: only answers.
pub const TELL: u32 = 0;
/// In [`Question::wish`]: notes the owner of a socket whose connection the fence has opened.
pub const NOTE: u32 = 1;
/// In [`Question::wish`]: notes the owner of the socket, whatever it shows.
pub const NOTE_ANYWAY: u32 = 2;

/// The answers to a [`Question`]: no such socket was found.
pub const NOT_FOUND: u32 = 0;
/// The connection was opened by the socket. For [`NOTE`] and [`NOTE_ANYWAY`], its owner is noted.
pub const OPENED: u32 = 1;
/// The owner of the socket cannot be noted: there is no memory for it.
pub const UNNOTED: u32 = 2;
/// A listener has accepted the connection. The answer is this number and, above [`ACCEPTED_BITS`], the index of the
/// network device by which the peer completed the connection.
pub const ACCEPTED: u32 = 3;
/// The numbers of the socket change faster than they can be read.
pub const CHANGING: u32 = 4;
/// The number of bits of an answer without that index.
pub const ACCEPTED_BITS: u32 = 3;

/// How the numbers of a TCP socket show who opened its connection.
///
/// The kernel does not record it. But a socket that a listener made (`tcp_v4_syn_recv_sock` in net/ipv4/tcp_ipv4.c,
/// `tcp_v6_syn_recv_sock` in net/ipv6/tcp_ipv6.c) has the index of the device from which its last packet came where a
/// datagram socket has the device for multicasts. A TCP socket cannot be given one by a call, so it is 0 in every
/// other. It remains if the socket is disconnected, and then opens a connection itself. Such a connection is told by its
/// counts: `bytes_acked` includes the SYN of the socket that opened the connection (`tcp_snd_una_update`), and no SYN of
/// one that a listener made, whose count begins behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `skc_state`.
    pub state: u32,
    /// The index of the device.
    pub device: u32,
    /// `snd_nxt`: the number of the next byte to be sent.
    pub next: u32,
    /// `snd_una`: the number of the first byte that is not acknowledged.
    pub unacknowledged: u32,
    /// `write_seq`: the number behind the last byte that is to be sent.
    pub end: u32,
    /// `bytes_acked`, modulo 2^32 as the numbers above.
    pub acknowledged: u32,
    /// `bytes_sent`: the bytes of data that were sent. Those that the own machine discarded count as often as they were
    /// tried.
    pub sent: u32,
    /// `bytes_retrans`: those that were sent again.
    pub again: u32,
}

/// TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK and TCP_CLOSING (net/tcp_states.h): the socket has sent a FIN, or is about to.
const CLOSING: [u32; 4] = [4, 5, 9, 11];

impl Shown {
    /// Whether a listener has accepted the connection.
    #[must_use]
    #[inline(always)]
    pub fn is_accepted(&self) -> bool {
        if self.device == 0 {
            return false;
        }
        let mut fin = 0;
        for state in CLOSING {
            // The FIN is the last that is sent.
            if self.state == state && self.next == self.end {
                fin = 1;
            }
        }
        let passed = self
            .next
            .wrapping_sub(self.unacknowledged)
            .wrapping_add(self.acknowledged)
            .wrapping_add(self.again)
            .wrapping_sub(self.sent)
            .wrapping_sub(fin);
        // Below zero if bytes were discarded before they were sent.
        passed.cast_signed() <= 0
    }
}

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.cgroups`: the cgroups of a task.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: the one of cgroup v2 among them.
    pub default_cgroup: u32,
    /// `task_struct.tgid`: the process.
    pub task_process: u32,
    /// `task_struct.pid`: the thread.
    pub task_thread: u32,
    /// `task_struct.comm`: the name.
    pub task_name: u32,
    /// `task_struct.cred`: the credentials.
    pub task_credentials: u32,
    /// `cred.uid`: the user.
    pub user: u32,
    /// `sock_common.skc_family`.
    pub family: u32,
    /// `sock_common.skc_state`.
    pub state: u32,
    /// `sock_common.skc_num`.
    pub port: u32,
    /// `sock.sk_type`.
    pub kind: u32,
    /// `sock.sk_protocol`.
    pub protocol: u32,
    /// `net.net_cookie`.
    pub netns_cookie: u32,
    /// `sock_common.skc_flags`.
    pub flags: u32,
    /// The bit of SO_BROADCAST in them: `SOCK_BROADCAST` of `enum sock_flags`.
    pub broadcast: u32,
    /// `sock_common.skc_cookie`.
    pub cookie: u32,
    /// `inet_sock.mc_index`.
    pub device: u32,
    /// `inet_sock.pinet6`; 0 if the kernel has no IPv6.
    pub v6: u32,
    /// `ipv6_pinfo.mcast_oif`.
    pub v6_device: u32,
    /// `tcp_sock.snd_nxt`.
    pub next: u32,
    /// `tcp_sock.snd_una`.
    pub unacknowledged: u32,
    /// `tcp_sock.write_seq`.
    pub end: u32,
    /// `tcp_sock.bytes_acked`.
    pub acknowledged: u32,
    /// `tcp_sock.bytes_sent`.
    pub sent: u32,
    /// `tcp_sock.bytes_retrans`.
    pub again: u32,
    /// `mptcp_sock.first`: the first subflow; 0 if the kernel has no MPTCP.
    pub subflow: u32,
    /// `file.f_inode`.
    pub inode: u32,
    /// `inode.i_mode`.
    pub mode: u32,
    /// `inode.i_rdev`: the numbers of a device.
    pub numbers: u32,
    /// The major numbers of tap devices (/dev/tapN), those of macvtap and of ipvtap; 0 where there are none.
    pub taps: [u32; 2],
}

const _: () = assert!(size_of::<Offsets>() == 124 && align_of::<Offsets>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OpenSocket {}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTABLISHED: u32 = 1;
    const FIN_WAIT2: u32 = 5;
    const CLOSE_WAIT: u32 = 8;

    /// A socket whose first byte of data has the number 1000, and that has sent 50 bytes, of which 30 are acknowledged.
    fn accepted() -> Shown {
        Shown {
            state: ESTABLISHED,
            device: 2,
            next: 1050,
            unacknowledged: 1030,
            end: 1070,
            acknowledged: 30,
            sent: 50,
            again: 0,
        }
    }

    #[test]
    fn what_a_listener_made_has_a_device_and_no_syn() {
        let it = accepted();
        assert!(it.is_accepted());
        assert!(!Shown { device: 0, ..it }.is_accepted());
        let opened = Shown {
            acknowledged: 31,
            ..it
        };
        assert!(!opened.is_accepted());
        assert!(
            Shown {
                state: CLOSE_WAIT,
                ..it
            }
            .is_accepted()
        );
    }

    #[test]
    fn what_was_sent_again_counts_once() {
        let it = Shown {
            sent: 80,
            again: 30,
            ..accepted()
        };
        assert!(it.is_accepted());
        let opened = Shown {
            acknowledged: 31,
            ..it
        };
        assert!(!opened.is_accepted());
        // The own machine has discarded ten bytes once.
        assert!(Shown { sent: 90, ..it }.is_accepted());
    }

    #[test]
    fn a_fin_counts_once_it_is_sent() {
        let it = Shown {
            state: FIN_WAIT2,
            next: 1051,
            unacknowledged: 1051,
            end: 1051,
            acknowledged: 51,
            ..accepted()
        };
        assert!(it.is_accepted());
        let opened = Shown {
            acknowledged: 52,
            ..it
        };
        assert!(!opened.is_accepted());
    }

    #[test]
    fn numbers_go_round() {
        let it = Shown {
            next: 20,
            unacknowledged: u32::MAX - 9,
            end: 20,
            acknowledged: 20,
            sent: 50,
            ..accepted()
        };
        assert!(it.is_accepted());
        let opened = Shown {
            acknowledged: 21,
            ..it
        };
        assert!(!opened.is_accepted());
    }
}
