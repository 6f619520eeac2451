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

/// What is known of a peer, in one word: when it was last heard of, in nanoseconds since boot, but for the lowest bit.
/// That is set of one that spoke before the fence had asked anybody from its port, so that it cannot have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Heard(pub u64);

impl Heard {
    const UNASKED: u64 = 1;

    /// Of a peer that was heard of just now.
    #[must_use]
    #[inline(always)]
    pub const fn now(now_ns: u64, unasked: bool) -> Self {
        Self(now_ns & !Self::UNASKED | unasked as u64)
    }

    /// Whether it spoke before the fence had asked anybody from its port.
    #[must_use]
    #[inline(always)]
    pub const fn is_unasked(self) -> bool {
        self.0 & Self::UNASKED != 0
    }

    /// Whether it may be answered now: not for long after it was last heard of, nor once it is [`Self::forgotten`].
    #[must_use]
    #[inline(always)]
    pub const fn may_be_answered(self, now_ns: u64) -> bool {
        self.0 > Self::UNASKED && now_ns.wrapping_sub(self.0) < SILENCE_NS
    }

    /// What is known of it after a change of the policy: that it spoke unasked, if so. It may not be answered before it is
    /// heard of again.
    #[must_use]
    pub const fn forgotten(self) -> Option<Self> {
        if self.is_unasked() {
            Some(Self(Self::UNASKED))
        } else {
            None
        }
    }
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
    /// A sender, by address and port, that may have been answering what was asked under another policy: when it was last
    /// heard of. Senders that share a slot count as one.
    Answering(Halves, u16),
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
            Self::Answering(address, port) => 3 << 16 | slot(address, port),
        }
    }
}

/// How many keys there are.
pub const NOTED: usize = 4 << 16;

/// Sixteen bits of an address and a port, such that neighbours get slots of their own.
#[inline(always)]
const fn slot(address: Halves, port: u16) -> u32 {
    // The odd numbers are those of FNV-1a, and of the golden ratio.
    let mixed = (address.upper ^ address.lower.rotate_left(32)).wrapping_mul(0x0000_0100_0000_01b3)
        ^ port as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32
}

/// For how long after the fence has sent from an end, in nanoseconds, a datagram from there that arrives over loopback
/// is taken for the fence's own: more than one takes. It would be a peer by a port that a rule allows, and so would
/// whoever on the host has its port next.
pub const OWN_FOR_NS: u64 = 10_000_000_000;

/// For how long after a change of the policy, in nanoseconds, a sender may be answering what was asked before, if the fence
/// had asked anybody from its port; and after it was last heard of, if it was.
pub const ANSWERS_FOR_NS: u64 = 600_000_000_000;

/// What is known when a datagram arrives over loopback from a peer that the fence has not asked. Without options, of
/// which the compiler reads what is not there before it looks whether it is: the verifier takes that for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it arrives, in nanoseconds since boot, as the others.
    pub now_ns: u64,
    /// When the fence first asked from the port that it goes to; [`u64::MAX`] if it never did.
    pub asked_ns: u64,
    /// When the policy was last changed.
    pub changed_ns: u64,
    /// When its sender was last noted as [`Noted::Answering`]; 0 if it never was.
    pub answering_ns: u64,
}

impl Arrival {
    /// Whether its sender may be answering what the fence asked under another policy, from whatever port.
    #[must_use]
    #[inline(always)]
    pub const fn may_be_an_answer(&self) -> bool {
        self.asked_ns < self.changed_ns
            && (self.now_ns < self.changed_ns.saturating_add(ANSWERS_FOR_NS)
                || (self.answering_ns != 0
                    && self.now_ns < self.answering_ns.saturating_add(ANSWERS_FOR_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_forgotten_after_a_minute() {
        let last = 4;
        for unasked in [false, true] {
            let heard = Heard::now(last, unasked);
            assert_eq!(heard.is_unasked(), unasked);
            assert!(heard.may_be_answered(last + 1));
            assert!(heard.may_be_answered(last + SILENCE_NS - 1));
            assert!(!heard.may_be_answered(last + SILENCE_NS + 1));
            // From the future: of no clock that is known here.
            assert!(!heard.may_be_answered(last - 1));
        }
    }

    #[test]
    fn after_a_change_it_is_known_who_spoke_unasked_and_answered_by_nobody() {
        assert_eq!(Heard::now(4, false).forgotten(), None);
        let forgotten = Heard::now(4, true).forgotten().unwrap();
        assert!(forgotten.is_unasked());
        for now in [0, 1, 5] {
            assert!(!forgotten.may_be_answered(now));
        }
    }

    #[test]
    fn keys_of_one_kind_are_none_of_another() {
        let address = Halves::from_v4(0x7f00_0001);
        for port in [0, 1, 53, u16::MAX] {
            let keys = [
                Noted::Asked(port).key(),
                Noted::AskedFrom(port).key(),
                Noted::Own(address, port).key(),
                Noted::Answering(address, port).key(),
            ];
            assert_eq!(keys.map(|key| key >> 16), [0, 1, 2, 3]);
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

    const ARRIVAL: Arrival = Arrival {
        now_ns: 100,
        asked_ns: u64::MAX,
        changed_ns: 50,
        answering_ns: 0,
    };

    #[test]
    fn what_was_asked_under_another_policy_may_be_answered_for_a_while() {
        let asked = |asked_ns| Arrival {
            asked_ns,
            ..ARRIVAL
        };
        assert!(asked(49).may_be_an_answer());
        assert!(!asked(50).may_be_an_answer());
        let later = Arrival {
            now_ns: 50 + ANSWERS_FOR_NS,
            ..asked(49)
        };
        assert!(!later.may_be_an_answer());
        let goes_on = Arrival {
            answering_ns: 51,
            ..later
        };
        assert!(goes_on.may_be_an_answer());
        // Under this policy everybody who was asked under it may answer.
        let asked_anew = Arrival {
            asked_ns: 50,
            ..goes_on
        };
        assert!(!asked_anew.may_be_an_answer());
    }
}
