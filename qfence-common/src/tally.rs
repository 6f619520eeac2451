//! Counts: of each rule's decisions, of traffic, and of each destination that monitor mode let through.

mod hits;

use core::{iter::Sum, ops::Add};

use crate::{Action, Halves, Protocol};

pub use hits::{Hits, Passed, RuleCounts, more_hits_index};

/// The classes of protocols by which verdicts are counted.
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
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// Returns the class of a protocol.
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

    /// Returns the number of the class of a protocol. Its two bits are looked up in one word each: a comparison for each
    /// protocol would make the verifier check for each class what follows.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "two bits")]
    pub const fn number(protocol: Protocol) -> u32 {
        const fn bit(protocol: Protocol) -> u64 {
            1 << protocol.0
        }
        const LOWER: u64 = !(bit(Protocol::TCP) | bit(Protocol::ICMP) | bit(Protocol::ICMPV6));
        const UPPER: u64 = !(bit(Protocol::TCP) | bit(Protocol::UDP));
        let number = match protocol {
            Protocol::MPTCP => Protocol::TCP.0,
            Protocol(number) => number,
        };
        if number >= u64::BITS {
            return Self::Other as u32;
        }
        (LOWER >> number & 1 | (UPPER >> number & 1) << 1) as u32
    }

    /// The name of the class in metrics.
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

/// The outcome of a call or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Sent: a rule or the reply exception allows it.
    Sent = 0,
    /// Sent although the policy denies it, because the policy is only monitored.
    SentMonitored = 1,
    /// Refused, in either direction.
    Refused = 2,
    /// Received.
    Received = 3,
    /// Received although the policy denies it, because the policy is only monitored.
    ReceivedMonitored = 4,
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Sent,
        Self::SentMonitored,
        Self::Refused,
        Self::Received,
        Self::ReceivedMonitored,
    ];

    /// Returns the outcome with this number. Any other number is a refusal.
    #[must_use]
    #[inline(always)]
    pub const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Sent,
            1 => Self::SentMonitored,
            3 => Self::Received,
            4 => Self::ReceivedMonitored,
            _ => Self::Refused,
        }
    }

    /// The action of the verdict behind this outcome, if there was a verdict.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Sent | Self::Received => Action::Allow,
            Self::SentMonitored | Self::Refused | Self::ReceivedMonitored => Action::Deny,
        }
    }

    /// The direction of the traffic.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Sent | Self::SentMonitored => Direction::Sent,
            Self::Refused => Direction::Refused,
            Self::Received | Self::ReceivedMonitored => Direction::Received,
        }
    }
}

/// The counts of one outcome and one class of protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Calls of connect().
    pub connects: u64,
    /// Calls that send a datagram to a destination of its own.
    pub sends: u64,
    /// Packets that were judged.
    pub judged: u64,
    /// Packets that were not judged: those that continue a TCP connection, most incoming packets, and those that could
    /// not be parsed. Their class is not determined.
    pub unjudged: u64,
    /// The bytes of all packets, each from its IP header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Tally>() == 40 && align_of::<Tally>() == 8);

impl Tally {
    /// The number of verdicts. Replies to peers count as allowed, although no rule allows them.
    #[must_use]
    pub const fn verdicts(&self) -> u64 {
        self.connects + self.sends + self.judged
    }

    /// The traffic of this outcome and class.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        Traffic {
            connects: self.connects,
            packets: self.judged + self.unjudged,
            bytes: self.bytes,
        }
    }
}

/// The number of tallies.
pub const TALLIES: usize = Outcome::ALL.len() * Class::ALL.len();

/// The index of a tally.
#[must_use]
#[inline(always)]
pub const fn tally_index(outcome: Outcome, class: Class) -> u32 {
    tally_index_of(outcome as u32, class as u32)
}

/// The same by the numbers of the outcome and of the [class](Class::number).
#[must_use]
#[inline(always)]
pub const fn tally_index_of(outcome: u32, class: u32) -> u32 {
    outcome * 4 + class
}

/// The direction in which traffic is counted: sent, refused, or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Outgoing traffic that left.
    Sent,
    /// Traffic that was refused, in either direction.
    Refused,
    /// Incoming traffic that arrived.
    Received,
}

/// An amount of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls of connect().
    pub connects: u64,
    /// Packets as the network layer sees them: one can be several packets on the wire.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connects: self.connects + other.connects,
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(traffic: I) -> Self {
        traffic.fold(Self::default(), Self::add)
    }
}

/// A sighting: a destination that the policy denies and monitor mode let through. It is the key of a map whose values
/// count how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Sighting {
    /// The address of the destination.
    pub address: Halves,
    /// The port, in host order; 0 for protocols without ports.
    pub port: u32,
    /// The IP protocol number.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Sighting>() == 24 && align_of::<Sighting>() == 8);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Tally {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Sighting {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tally_has_a_place_of_its_own() {
        let mut expected = 0;
        for outcome in Outcome::ALL {
            for class in Class::ALL {
                assert_eq!(tally_index(outcome, class), expected);
                expected += 1;
            }
        }
        assert_eq!(usize::try_from(expected), Ok(TALLIES));
    }

    #[test]
    fn the_number_of_a_class_is_that_of_its_protocols() {
        for protocol in (0..=300).chain([u32::MAX]).map(Protocol) {
            assert_eq!(Class::number(protocol), Class::of(protocol) as u32);
        }
    }
}
