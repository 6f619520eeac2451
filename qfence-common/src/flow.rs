//! What was let through to a destination, for a fence that logs it.

use crate::{Halves, Sighting};

/// The value of the global [`crate::abi::LOG_ALLOWED`] in a fence that logs what is let through.
pub const TOGETHER: u32 = 1;

/// The value in one that also tells apart the cgroups in it.
pub const BY_CGROUP: u32 = 2;

/// A destination, and who reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    /// The destination.
    pub to: Sighting,
    /// The id of the cgroup in which the socket was made, in a fence that tells its cgroups apart; otherwise 0. Also 0 for
    /// frames of guests.
    pub cgroup: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 32 && align_of::<FlowKey>() == 8);

/// The traffic with a destination since it was first reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The number of allowed calls: connect(), and calls that send a datagram to an address.
    pub calls: u64,
    /// The number of packets to the destination.
    pub sent_packets: u64,
    /// Their bytes, with IP headers.
    pub sent_bytes: u64,
    /// The number of packets from the destination.
    pub received_packets: u64,
    /// Their bytes, with IP headers.
    pub received_bytes: u64,
    /// The number of the rule that allowed the first call or packet.
    pub rule: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Flow>() == 48 && align_of::<Flow>() == 8);

/// The key of the traffic to destinations for which there was no room. It is in the map from the start.
pub const OTHERS: FlowKey = FlowKey {
    to: Sighting {
        address: Halves::NONE,
        port: 0,
        protocol: 0,
    },
    cgroup: 0,
};

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowKey {}
