//! What is counted for each rule, of traffic, and for each destination that monitor mode saw.

use crate::{Action, Address, Protocol};

/// How often a rule has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hits {
    /// Calls: connect(), and sends with a destination.
    pub calls: u64,
    /// Packets; those that go on with a TCP connection are not judged.
    pub packets: u64,
}

const _: () = assert!(size_of::<Hits>() == 16 && align_of::<Hits>() == 8);

/// The protocols that verdicts are counted by; all others are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// TCP, and MPTCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// ICMP of either family.
    Icmp = 2,
    /// Every other protocol.
    Other = 3,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// That of a protocol.
    #[must_use]
    #[inline(always)]
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::TCP | Protocol::MPTCP => Self::Tcp,
            Protocol::UDP => Self::Udp,
            Protocol::ICMP | Protocol::ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// Its name, as in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

/// How many counters of verdicts there are.
pub const VERDICTS: usize = 8;

/// Where a verdict is counted.
#[must_use]
#[inline(always)]
pub const fn verdict_index(action: Action, class: Class) -> u32 {
    action as u32 * 4 + class as u32
}

/// Which traffic is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    /// What leaves.
    Sent = 0,
    /// What was refused, in either direction.
    Refused = 1,
    /// What arrives.
    Received = 2,
}

impl Way {
    /// How many ways there are.
    pub const COUNT: usize = 3;
}

/// How much traffic there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Calls of connect().
    pub connects: u64,
    /// Packets as the network layer has them: one can be many of the wire's.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Traffic>() == 24 && align_of::<Traffic>() == 8);

/// A destination that monitor mode let through although the policy refuses it: the key of a map whose
/// values count how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Sighting {
    /// The address.
    pub address: Address,
    /// The port, in host order; 0 for protocols without.
    pub port: u32,
    /// The IP protocol number.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Sighting>() == 24 && align_of::<Sighting>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Hits {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Traffic {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sighting {}
