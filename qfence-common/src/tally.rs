//! What is counted for each rule, of traffic, and for each destination that monitor mode saw.

use core::{iter::Sum, ops::Add};

use crate::{Action, Halves, Protocol, verdict::MAX_RULES};

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

/// Where in the map of more hits a CPU counts for a rule. Each CPU has a place for all rules, so that no two
/// of them write to one line of memory.
#[must_use]
#[inline(always)]
pub const fn more_hits_index(rule: u32, cpu: u32) -> u32 {
    cpu.wrapping_mul(MAX_RULES).wrapping_add(rule)
}

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

/// What became of a call or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// It left: by a rule that allows it, or as the answer to a peer that spoke first.
    Sent = 0,
    /// It left, for the policy is only monitored.
    SentMonitored = 1,
    /// It was refused, in either direction.
    Refused = 2,
    /// It arrived.
    Received = 3,
    /// It arrived, for the policy is only monitored.
    ReceivedMonitored = 4,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Sent,
        Self::SentMonitored,
        Self::Refused,
        Self::Received,
        Self::ReceivedMonitored,
    ];

    /// The one of this number. Any other number is a refusal.
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

    /// What was said of those that were judged.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Sent | Self::Received => Action::Allow,
            Self::SentMonitored | Self::Refused | Self::ReceivedMonitored => Action::Deny,
        }
    }

    /// Which traffic it is of.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::Sent | Self::SentMonitored => Direction::Sent,
            Self::Refused => Direction::Refused,
            Self::Received | Self::ReceivedMonitored => Direction::Received,
        }
    }
}

/// What is counted of all that had one outcome, by the class of its protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    /// Calls of connect().
    pub connects: u64,
    /// Datagrams with a destination of their own, at the call.
    pub sends: u64,
    /// Packets that were judged.
    pub judged: u64,
    /// Packets that were not: those that go on with a TCP connection, most that arrive, and those that could not be
    /// understood. Their class is not looked at.
    pub unjudged: u64,
    /// The bytes of all packets, from the IP header on.
    pub bytes: u64,
}

const _: () = assert!(size_of::<Tally>() == 40 && align_of::<Tally>() == 8);

impl Tally {
    /// How often a verdict was given. Answers to peers are among those that allow, and no rule gave them.
    #[must_use]
    pub const fn verdicts(&self) -> u64 {
        self.connects + self.sends + self.judged
    }

    /// The traffic.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        Traffic {
            connects: self.connects,
            packets: self.judged + self.unjudged,
            bytes: self.bytes,
        }
    }
}

/// How many tallies there are.
pub const TALLIES: usize = Outcome::ALL.len() * Class::ALL.len();

/// Where a tally is.
#[must_use]
#[inline(always)]
pub const fn tally_index(outcome: Outcome, class: Class) -> u32 {
    outcome as u32 * 4 + class as u32
}

/// Which traffic is counted: what leaves, what arrives, and what was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What leaves.
    Sent,
    /// What was refused, in either direction.
    Refused,
    /// What arrives.
    Received,
}

/// How much traffic there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls of connect().
    pub connects: u64,
    /// Packets as the network layer has them: one can be many of the wire's.
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

/// A destination that monitor mode let through although the policy refuses it: the key of a map whose
/// values count how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Sighting {
    /// The address.
    pub address: Halves,
    /// The port, in host order; 0 for protocols without.
    pub port: u32,
    /// The IP protocol number.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Sighting>() == 24 && align_of::<Sighting>() == 8);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Hits {}

// SAFETY: as above.
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
}
