//! What was let through to a destination, for a fence that logs it. The key is a [`crate::Sighting`].

use crate::{Halves, Sighting};

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
pub const OTHERS: Sighting = Sighting {
    address: Halves::NONE,
    port: 0,
    protocol: 0,
};

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}
