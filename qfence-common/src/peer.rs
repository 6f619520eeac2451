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

/// How many ports there can be that the fence has asked.
pub const ASKED_PORTS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

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
