//! The record of one refusal, as it travels through the ring buffer.

use crate::Address;

/// Where in the kernel qfence has a program.
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
    /// A packet that leaves.
    Egress = 4,
    /// A packet that arrives over loopback: the only ones to be refused are answers to pings.
    Ingress = 5,
    /// `socket()`.
    SockCreate = 6,
    /// `open()` of a device.
    Device = 7,
    /// `setsockopt()`.
    Setsockopt = 8,
}

impl Hook {
    /// All hooks, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Egress,
        Self::Ingress,
        Self::SockCreate,
        Self::Device,
        Self::Setsockopt,
    ];

    /// The kernel's name of the hook, as in logs and in the names of pinned links.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::SockCreate => "sock_create",
            Self::Device => "device",
            Self::Setsockopt => "setsockopt",
        }
    }

    /// The hook of that number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Connect4),
            1 => Some(Self::Connect6),
            2 => Some(Self::Sendmsg4),
            3 => Some(Self::Sendmsg6),
            4 => Some(Self::Egress),
            5 => Some(Self::Ingress),
            6 => Some(Self::SockCreate),
            7 => Some(Self::Device),
            8 => Some(Self::Setsockopt),
            _ => None,
        }
    }
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`).
    pub boot_ns: u64,
    /// The id of the cgroup the process is in (the inode of its directory).
    pub cgroup: u64,
    /// The destination; all zero at the hooks for sockets and devices. At ingress, the sender.
    pub address: Address,
    /// The name of the thread (`comm`), padded with zeros; all zero if it is not known.
    pub comm: [u8; 16],
    /// The process (thread group) id, in the initial pid namespace; 0 if it is not known. At egress
    /// it is the process that made the socket: packets also leave in interrupts of others.
    pub pid: u32,
    /// The destination port, in host order. For a socket, its type (`SOCK_*`); for a device, its
    /// minor number.
    pub port: u32,
    /// The IP protocol number. For a device, its major number.
    pub protocol: u32,
    /// A [`Hook`].
    pub hook: u32,
    /// The rule that decided: its index in the policy, or one of the numbers in [`crate::decide`].
    pub rule: u32,
    /// 1 if it was let through, for the policy is only monitored; otherwise 0.
    pub monitored: u32,
}

const _: () = assert!(size_of::<Event>() == 72 && align_of::<Event>() == 8);

impl Event {
    /// Reads an event out of a ring buffer's record; `None` if it has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        Some(Self {
            boot_ns: u64_at(0)?,
            cgroup: u64_at(8)?,
            address: bytes.get(16..32)?.try_into().ok()?,
            comm: bytes.get(32..48)?.try_into().ok()?,
            pid: u32_at(48)?,
            port: u32_at(52)?,
            protocol: u32_at(56)?,
            hook: u32_at(60)?,
            rule: u32_at(64)?,
            monitored: u32_at(68)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_is_found_by_its_number() {
        for hook in Hook::ALL {
            assert_eq!(Hook::from_number(hook as u32), Some(hook));
        }
        assert_eq!(Hook::from_number(9), None);
    }

    #[test]
    fn bytes_become_the_fields_at_their_offsets() {
        let event = Event {
            boot_ns: 1,
            cgroup: 2,
            address: [3; 16],
            comm: [4; 16],
            pid: 5,
            port: 6,
            protocol: 7,
            hook: 8,
            rule: 9,
            monitored: 0,
        };
        let mut bytes = [0; size_of::<Event>()];
        bytes[core::mem::offset_of!(Event, boot_ns)] = 1;
        bytes[core::mem::offset_of!(Event, cgroup)] = 2;
        bytes[16..32].fill(3);
        bytes[32..48].fill(4);
        bytes[core::mem::offset_of!(Event, pid)] = 5;
        bytes[core::mem::offset_of!(Event, port)] = 6;
        bytes[core::mem::offset_of!(Event, protocol)] = 7;
        bytes[core::mem::offset_of!(Event, hook)] = 8;
        bytes[core::mem::offset_of!(Event, rule)] = 9;
        assert_eq!(Event::from_bytes(&bytes), Some(event));
        assert_eq!(Event::from_bytes(&bytes[1..]), None);
    }
}
