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

/// The number of bits of a slot's number, without the first slot.
pub const SLOT_BITS: u32 = 14;

/// 2^64 divided by the golden ratio: multiplication by it spreads small differences over the high bits.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

impl FlowKey {
    /// The slot of the destination in [`crate::abi::FORGOTTEN_MAP`], which it shares with others. It is never 0.
    #[must_use]
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        let Sighting {
            address,
            port,
            protocol,
        } = self.to;
        let ends = (port as u64) << 32 | protocol as u64;
        let mut hash = (address.upper ^ self.cgroup).wrapping_mul(MIX);
        hash = (hash ^ hash >> 32 ^ address.lower).wrapping_mul(MIX);
        hash = (hash ^ hash >> 32 ^ ends).wrapping_mul(MIX);
        1 + (hash >> (u64::BITS - SLOT_BITS)) as u32
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Protocol, abi, address::from_v4};

    #[test]
    fn destinations_are_spread_over_all_slots_but_the_first() {
        let mut taken = [0_u8; abi::FORGOTTEN as usize];
        for host in 0..=255 {
            for port in 1..=16 {
                let key = FlowKey {
                    to: Sighting {
                        address: Halves::of(from_v4([192, 0, 2, host])),
                        port,
                        protocol: Protocol::TCP.0,
                    },
                    cgroup: 0,
                };
                taken[key.slot() as usize] += 1;
            }
        }
        assert_eq!(taken[0], 0);
        // A quarter as many keys as slots: 22 % of the slots have one or more if they are spread at random.
        let used = taken.iter().filter(|keys| **keys > 0).count();
        assert!(used > 3_400, "{used}");
        assert!(taken.iter().all(|keys| *keys < 10));
    }
}
