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

/// What is noted of the datagrams that the fence sends to the host, by which an answer is told from a peer that speaks
/// first. To each goes a time, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// A port of the host that the fence has asked, by a rule: when it did first.
    Asked(u16),
    /// A port of the fence from which it has asked: when it did first.
    AskedFrom(u16),
    /// An end of the fence's own, address and port, from which it sends over loopback: when it did last. Ends that
    /// share a slot count as one.
    Own(Halves, u16),
}

impl Noted {
    /// The key of the trie.
    #[must_use]
    #[inline(always)]
    pub const fn key(self) -> u32 {
        match self {
            Self::Asked(port) => port as u32,
            Self::AskedFrom(port) => 1 << 16 | port as u32,
            Self::Own(address, port) => 2 << 16 | slot(address, port),
        }
    }
}

/// How many keys there are.
pub const NOTED: usize = 3 << 16;

/// Sixteen bits of an address and a port, such that neighbours get slots of their own.
#[inline(always)]
const fn slot(address: Halves, port: u16) -> u32 {
    // The odd numbers are those of FNV-1a, and of the golden ratio.
    let mixed = (address.upper ^ address.lower.rotate_left(32)).wrapping_mul(0x0000_0100_0000_01b3)
        ^ port as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32
}

/// For how long after the fence has sent from an end, in nanoseconds, a datagram from there that arrives over loopback
/// is taken for the fence's own: more than one takes.
pub const OWN_FOR_NS: u64 = 10_000_000_000;

/// What is known when a datagram arrives over loopback from a peer that the fence has not asked. Without options, of
/// which the compiler reads what is not there before it looks whether it is: the verifier takes that for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrives, in nanoseconds since boot, as the others.
    pub now_ns: u64,
    /// Until when what comes from that address and port is taken for the fence's own; 0 for what never was.
    pub own_until_ns: u64,
    /// When the fence first asked from the port that it goes to; [`u64::MAX`] if it never did.
    pub asked_ns: u64,
    /// When the policy was last changed.
    pub changed_ns: u64,
}

impl Arrival {
    /// Whether its sender speaks first. Not the fence itself: it would be a peer by a port that a rule allows, and so
    /// would whoever on the host has the sender's port next. And not who may be answering what the fence asked under
    /// another policy, from whatever port.
    #[must_use]
    #[inline(always)]
    pub const fn speaks_first(&self) -> bool {
        self.now_ns >= self.own_until_ns && self.asked_ns >= self.changed_ns
    }
}

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

    #[test]
    fn keys_of_one_kind_are_none_of_another() {
        let address = Halves::from_v4(0x7f00_0001);
        for port in [0, 1, 53, u16::MAX] {
            let keys = [
                Noted::Asked(port).key(),
                Noted::AskedFrom(port).key(),
                Noted::Own(address, port).key(),
            ];
            assert_eq!(keys.map(|key| key >> 16), [0, 1, 2]);
        }
    }

    #[test]
    fn the_ends_of_one_address_have_slots_of_their_own() {
        let address = Halves::from_v4(0x7f00_0001);
        let mut keys = [false; 1 << 16];
        for port in 0..=u16::MAX {
            let key = Noted::Own(address, port).key() & 0xffff;
            keys[usize::try_from(key).unwrap()] = true;
        }
        let taken = keys.iter().filter(|is_taken| **is_taken).count();
        // By chance it would be 41,427.
        assert!(taken > 40_000, "{taken}");
        let other = Halves::from_v4(0x7f00_0002);
        assert_ne!(Noted::Own(address, 53).key(), Noted::Own(other, 53).key());
    }

    #[test]
    fn the_fence_itself_does_not_speak_first() {
        let arrival = Arrival {
            now_ns: 100 + OWN_FOR_NS,
            own_until_ns: 0,
            asked_ns: u64::MAX,
            changed_ns: 50,
        };
        assert!(arrival.speaks_first());
        let own = |own_ns| Arrival {
            own_until_ns: own_ns + OWN_FOR_NS,
            ..arrival
        };
        assert!(own(100).speaks_first());
        assert!(!own(101).speaks_first());
        // Another CPU was faster.
        assert!(!own(200 + OWN_FOR_NS).speaks_first());
    }

    #[test]
    fn who_answers_what_was_asked_under_another_policy_does_not_speak_first() {
        let asked = |asked_ns| Arrival {
            now_ns: 100,
            own_until_ns: 0,
            asked_ns,
            changed_ns: 50,
        };
        assert!(!asked(49).speaks_first());
        assert!(asked(50).speaks_first());
    }
}
