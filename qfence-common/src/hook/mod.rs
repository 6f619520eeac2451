//! The hooks: the points in the kernel where qfence has a program.

mod table;

pub use table::{FRAME_HOOKS, HOOKS, LSM_HOOKS};

/// A point in the kernel where qfence has a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Hook {
    /// `connect()` on an IPv4 socket.
    Connect4 = 0,
    /// `connect()` on an IPv6 socket, v4-mapped destinations included.
    Connect6 = 1,
    /// `sendto()`/`sendmsg()` with a destination, on an IPv4 socket, or v4-mapped on an IPv6 one.
    Sendmsg4 = 2,
    /// `sendto()`/`sendmsg()` with a destination, on an IPv6 socket.
    Sendmsg6 = 3,
    /// An outgoing packet.
    Egress = 4,
    /// An incoming packet. Only answers to pings, over loopback, can be refused here.
    Ingress = 5,
    /// `socket()`.
    SockCreate = 6,
    /// `open()` of a device.
    Device = 7,
    /// `setsockopt()`.
    Setsockopt = 8,
    /// `connect()` on a Unix socket, by name (Linux 6.7).
    ConnectUnix = 9,
    /// `sendto()`/`sendmsg()` with a name, on a Unix socket (Linux 6.7).
    SendmsgUnix = 10,
    /// `bind()` on an IPv4 socket.
    Bind4 = 11,
    /// `bind()` on an IPv6 socket.
    Bind6 = 12,
    /// The source of a datagram that an IPv4 socket receives. Nothing is refused here, nor at the three hooks below.
    Recvmsg4 = 13,
    /// The source of a datagram that an IPv6 socket receives, v4-mapped sources included.
    Recvmsg6 = 14,
    /// `getpeername()` of an IPv4 socket.
    Getpeername4 = 15,
    /// `getpeername()` of an IPv6 socket.
    Getpeername6 = 16,
    /// `connect()` on a Unix stream or seqpacket socket, by the security module BPF.
    UnixStreamConnect = FIRST_LSM,
    /// A datagram, or `connect()`, on a Unix datagram socket, by the security module BPF.
    UnixMaySend = FIRST_LSM + 1,
    /// A file that another process hands over: a descriptor in a message of a Unix socket, or one taken by pidfd_getfd(2).
    FileReceive = FIRST_LSM + 2,
    /// A frame that enters the host by a fenced device: from the guest.
    Frame = FIRST_FRAME,
    /// A frame that leaves the host by a fenced device: to the guest. Nothing is refused here.
    FrameOut = FIRST_FRAME + 1,
    /// A packet that the host receives for itself, after all translation of addresses (`NF_INET_LOCAL_IN`).
    LocalIn = FIRST_FRAME + 2,
}

/// The number of the first hook of [`LSM_HOOKS`]. The numbers of [`HOOKS`] are below it.
const FIRST_LSM: u32 = 32;

/// The number of the first hook of [`FRAME_HOOKS`].
const FIRST_FRAME: u32 = 48;

/// The layer of a hook: its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Calls with a destination.
    Call,
    /// Packets.
    Packet,
    /// Sockets and their options.
    Socket,
    /// Devices.
    Device,
    /// Frames of a guest, at a network device of the host.
    Frame,
}

impl Layer {
    /// The name of the layer in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Packet => "packet",
            Self::Socket => "socket",
            Self::Device => "device",
            Self::Frame => "frame",
        }
    }
}

/// The subject of a hook's records. It determines the meaning of the fields of [`crate::AttemptKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A destination; at ingress, a sender.
    Destination,
    /// A socket: `port` is its type, `protocol` its protocol. If there is an address, it is a multicast group that the
    /// socket joins.
    Socket,
    /// A device: `protocol` is its major number, `port` its minor number. The address is [`crate::device::BLOCK`] for a
    /// block device, and otherwise zero.
    Device,
    /// A Unix socket outside the fence: `port` is its type.
    Peer,
    /// The name of a Unix socket: the address is its [fingerprint](crate::unix::fingerprint), `port` its length in bytes,
    /// `protocol` the number of its manager (0 for none). The event has the name itself.
    Name,
    /// The local address and port that a socket is bound to.
    Local,
    /// A frame: [`crate::AttemptKey::pid`] is the index of the device by which it came. `address` is the destination of
    /// an IP packet or the target of an ARP request; it is zero for other frames. `protocol` is the IP protocol, or
    /// [`crate::frame::NOT_IP`] with the ethertype in its lower 16 bits.
    Frame,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookRow {
    /// The hook.
    pub hook: Hook,
    /// The kernel's name of the hook, used in records and in the names of pinned links.
    pub name: &'static str,
    /// The layer of the hook.
    pub layer: Layer,
    /// The subject of its records.
    pub subject: Subject,
    /// The name of its program. It must differ from the ELF section (`cgroup/connect4`, …): bpf-linker drops a function
    /// whose name is that of its section.
    pub program: &'static str,
    /// Its number in `enum bpf_attach_type`, linux/bpf.h.
    pub attach_type: u32,
    /// Whether other programs at this hook can change the destination after it was judged.
    pub may_redirect: bool,
    /// Whether only some fences have a program at this hook: those whose closures or rules by name need it.
    pub is_optional: bool,
}

impl Hook {
    /// The hooks of [`HOOKS`], in the order of their numbers.
    pub const ALL: [Self; HOOKS.len()] = {
        let mut all = [Self::Connect4; HOOKS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = HOOKS[index].hook;
            index += 1;
        }
        all
    };

    /// The hooks of [`LSM_HOOKS`].
    pub const LSM: [Self; LSM_HOOKS.len()] = [
        Self::UnixStreamConnect,
        Self::UnixMaySend,
        Self::FileReceive,
    ];

    /// Those of [`Self::LSM`] that refuse the sockets of managers.
    pub const MANAGERS: [Self; 2] = [Self::UnixStreamConnect, Self::UnixMaySend];

    /// The hooks of [`FRAME_HOOKS`].
    pub const FRAME: [Self; FRAME_HOOKS.len()] = [Self::Frame, Self::FrameOut, Self::LocalIn];

    /// Whether it is one of [`LSM_HOOKS`].
    #[must_use]
    pub const fn is_lsm(self) -> bool {
        self as u32 >= FIRST_LSM && (self as u32) < FIRST_FRAME
    }

    /// Whether it is one of [`FRAME_HOOKS`].
    #[must_use]
    pub const fn is_frame(self) -> bool {
        self as u32 >= FIRST_FRAME
    }

    /// The row of the hook.
    #[must_use]
    pub const fn row(self) -> &'static HookRow {
        if self.is_frame() {
            &FRAME_HOOKS[(self as u32 - FIRST_FRAME) as usize]
        } else if self.is_lsm() {
            &LSM_HOOKS[(self as u32 - FIRST_LSM) as usize]
        } else {
            &HOOKS[self as usize]
        }
    }

    /// The kernel's name of the hook, used in records and in the names of pinned links.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The name of the hook's layer: `call`, `packet`, `socket`, `device` or `frame`.
    #[must_use]
    pub const fn layer(self) -> &'static str {
        self.row().layer.name()
    }

    /// Returns the hook with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        let index = number as usize;
        if index < HOOKS.len() {
            return Some(HOOKS[index].hook);
        }
        let index = number.wrapping_sub(FIRST_LSM) as usize;
        if index < LSM_HOOKS.len() {
            return Some(LSM_HOOKS[index].hook);
        }
        let index = number.wrapping_sub(FIRST_FRAME) as usize;
        if index < FRAME_HOOKS.len() {
            Some(FRAME_HOOKS[index].hook)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own() {
        for (index, row) in HOOKS.iter().enumerate() {
            for other in &HOOKS[index + 1..] {
                assert_ne!(row.name, other.name);
                assert_ne!(row.program, other.program);
                assert_ne!(row.attach_type, other.attach_type);
            }
            for other in LSM_HOOKS.iter().chain(&FRAME_HOOKS) {
                assert_ne!(row.name, other.name);
                assert_ne!(row.program, other.program);
                assert_ne!(row.attach_type, other.attach_type);
            }
        }
    }

    #[test]
    fn a_hook_is_found_by_its_number() {
        let optional = Hook::LSM.into_iter().chain(Hook::FRAME);
        for hook in Hook::ALL.into_iter().chain(optional) {
            assert_eq!(Hook::from_number(hook as u32), Some(hook));
            assert_eq!(hook.row().hook, hook);
        }
        assert_eq!(Hook::from_number(FIRST_LSM - 1), None);
        assert_eq!(Hook::from_number(FIRST_LSM + 3), None);
        assert_eq!(Hook::from_number(FIRST_FRAME - 1), None);
        assert_eq!(Hook::from_number(FIRST_FRAME + 3), None);
        assert_eq!(
            Hook::from_number(u32::try_from(Hook::ALL.len()).unwrap()),
            None
        );
        assert_eq!(Hook::from_number(u32::MAX), None);
    }
}
