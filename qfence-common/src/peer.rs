//! Who on the host may be answered: peers that spoke first.

use crate::Halves;

/// A peer on the host that sent a datagram to a port of the fence: the key of the map of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// The cookie of the network namespace it was heard in: what is a peer in one that somebody made
    /// for themselves is none in the host's.
    pub netns: u64,
    /// Its address.
    pub address: Halves,
    /// Its port, in host order.
    pub port: u16,
    /// The port in the fence that it sent to, in host order: the answer comes from there.
    pub local_port: u16,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Peer>() == 32 && align_of::<Peer>() == 8);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Peer {}

/// How long a peer may be silent before it is forgotten, in nanoseconds. Only what the peer sends
/// counts: a guest cannot keep a way open by using it.
pub const SILENCE_NS: u64 = 60_000_000_000;

/// Whether a peer that was last heard of at `last_ns` may be answered at `now_ns`, both in nanoseconds
/// of one clock.
#[must_use]
#[inline(always)]
pub const fn may_answer(last_ns: u64, now_ns: u64) -> bool {
    now_ns.wrapping_sub(last_ns) < SILENCE_NS
}

/// How many slots there are for what the fence has asked.
pub const ASKED_SLOTS: usize = 1 << 13;

/// Where it is noted that the fence has sent a datagram to an address and port of the host by a rule. Who was asked
/// does not speak first: what comes from there is an answer. Others may share the slot and are then not answered
/// either; so the fence can harm nobody by it but itself.
#[must_use]
#[inline(always)]
pub const fn asked_slot(address: Halves, port: u16) -> usize {
    // Multiplication carries each bit to those above it; the uppermost depend on all (Fibonacci hashing).
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let address = (address.upper ^ address.lower).wrapping_mul(GOLDEN);
    let mixed = (address ^ (address >> 32) ^ port as u64).wrapping_mul(GOLDEN);
    (mixed >> 51) as usize & (ASKED_SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_spread_over_the_slots() {
        let host = Halves::from_v4(0x7f00_0001);
        let mut is_taken = [false; ASKED_SLOTS];
        for port in 1..=1000 {
            is_taken[asked_slot(host, port)] = true;
        }
        // As many as chance would have it: of 1000 in 8192, few share one.
        assert!(is_taken.iter().filter(|taken| **taken).count() > 900);
        let other = Halves::from_v4(0x7f00_0002);
        assert_ne!(asked_slot(host, 53), asked_slot(other, 53));
    }

    #[test]
    fn a_peer_is_forgotten_after_a_minute() {
        let last = 5;
        assert!(may_answer(last, last));
        assert!(may_answer(last, last + SILENCE_NS - 1));
        assert!(!may_answer(last, last + SILENCE_NS));
        // From the future: of no clock that is known here.
        assert!(!may_answer(last, last - 1));
    }
}
