//! What is counted for each rule.

use super::Tally;
use crate::verdict::MAX_RULES;

/// The number of decisions of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Hits {
    /// Calls: connect(), and sends with a destination.
    pub calls: u64,
    /// Packets. TCP segments that continue a connection are normally not judged, and so not counted.
    pub packets: u64,
}

const _: () = assert!(size_of::<Hits>() == 16 && align_of::<Hits>() == 8);

/// The UDP that a rule allowed and that went on, so far as nothing else was to be noted of it: one place for what the rule and
/// the traffic count, because each place takes the programs a look-up and an atomic addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Passed {
    /// Calls of connect().
    pub connects: u64,
    /// Calls that send a datagram to a destination of its own.
    pub sends: u64,
    /// Datagrams.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

/// What is counted for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleCounts {
    /// The decisions that are not in `passed`.
    others: Hits,
    /// These are decisions too.
    pub passed: Passed,
}

const _: () = assert!(size_of::<RuleCounts>() == 48 && align_of::<RuleCounts>() == 8);

impl RuleCounts {
    /// All decisions of the rule.
    #[must_use]
    pub const fn hits(&self) -> Hits {
        let Self { others, passed } = self;
        let calls = others.calls.wrapping_add(passed.connects);
        Hits {
            calls: calls.wrapping_add(passed.sends),
            packets: others.packets.wrapping_add(passed.packets),
        }
    }

    /// The part of the traffic that is counted here: sent, of the class UDP.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        let Passed {
            connects,
            sends,
            packets,
            bytes,
        } = self.passed;
        Tally {
            connects,
            sends,
            judged: packets,
            unjudged: 0,
            bytes,
        }
    }

    /// The same for another rule with this number, which has decided nothing yet. The traffic remains.
    #[must_use]
    pub const fn of_new_rule(&self) -> Self {
        let passed = self.passed;
        let others = Hits {
            calls: passed.connects.wrapping_add(passed.sends).wrapping_neg(),
            packets: passed.packets.wrapping_neg(),
        };
        Self { others, passed }
    }

    /// Where the other decisions are counted.
    ///
    /// # Safety
    /// `counts` points into memory of that size.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn others(counts: *mut Self) -> *mut Hits {
        // SAFETY: by the caller's promise.
        unsafe { &raw mut (*counts).others }
    }
}

/// The index of a rule's counters on one CPU in the map for more rules. Each CPU has a block for all rules, so that no
/// two CPUs write to the same cache line.
#[must_use]
#[inline(always)]
pub const fn more_hits_index(rule: u32, cpu: u32) -> u32 {
    cpu.wrapping_mul(MAX_RULES).wrapping_add(rule)
}

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Hits {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for RuleCounts {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Traffic;

    #[test]
    fn a_rule_has_decided_what_passed_and_the_rest_and_a_new_rule_nothing() {
        let passed = Passed {
            connects: 1,
            sends: 20,
            packets: 300,
            bytes: 4000,
        };
        let others = Hits {
            calls: 5,
            packets: u64::MAX,
        };
        let counts = RuleCounts { others, passed };
        let expected = Hits {
            calls: 26,
            packets: 299,
        };
        assert_eq!(counts.hits(), expected);
        let new = counts.of_new_rule();
        assert_eq!(new.hits(), Hits::default());
        assert_eq!(new.tally(), counts.tally(), "the traffic remains");
        assert_eq!(counts.tally().verdicts(), 321);
        let Traffic {
            connects,
            packets,
            bytes,
        } = counts.tally().traffic();
        assert_eq!((connects, packets, bytes), (1, 300, 4000));
    }
}
