//! What is counted for each rule, and for each destination that monitor mode saw.

use crate::Address;

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
unsafe impl aya::Pod for Sighting {}
