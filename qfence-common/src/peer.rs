//! Peers: processes on the host to which the reply exception allows answers, because they sent the first datagram.
//!
//! A request, in this module, is a datagram that the fence sends to the host because a rule allows it.

use crate::Halves;

/// A peer on the host that sent a datagram to a port of the fence: the key of the map of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peer {
    /// The cookie of the network namespace in which the datagram arrived. A peer in a namespace that a process made for
    /// itself is no peer in the host's namespace.
    pub netns: u64,
    /// The address of the peer.
    pub address: Halves,
    /// The port of the peer, in host order.
    pub port: u16,
    /// The port of the fence to which the peer sent, in host order. The answer is sent from it.
    pub local_port: u16,
    /// Zero: the kernel compares all bytes of a key.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Peer>() == 32 && align_of::<Peer>() == 8);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Peer {}

/// The time of silence after which a peer is forgotten, in nanoseconds. Only datagrams from the peer count: a guest
/// cannot keep the exception alive by using it.
pub const SILENCE_NS: u64 = 60_000_000_000;

/// The state of a peer, in one word: the time of its last datagram, in nanoseconds since boot, without the lowest bit.
/// That bit is set if the peer's datagram came before the fence had sent any request from the peer's `local_port`. Such
/// a datagram cannot be an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Heard(pub u64);

impl Heard {
    const UNASKED: u64 = 1;

    /// The state of a peer whose datagram arrives now.
    #[must_use]
    #[inline(always)]
    pub const fn now(now_ns: u64, unasked: bool) -> Self {
        Self(now_ns & !Self::UNASKED | unasked as u64)
    }

    /// Whether the peer's datagram came before the fence had sent any request from that port.
    #[must_use]
    #[inline(always)]
    pub const fn is_unasked(self) -> bool {
        self.0 & Self::UNASKED != 0
    }

    /// Whether the reply exception applies now: the last datagram is recent enough, and the peer was not
    /// [`Self::forgotten`] since.
    #[must_use]
    #[inline(always)]
    pub const fn may_be_answered(self, now_ns: u64) -> bool {
        self.0 > Self::UNASKED && now_ns.wrapping_sub(self.0) < SILENCE_NS
    }

    /// The state of the peer after a change of the policy: only the unasked bit is kept. Answers are denied until the
    /// peer sends again. `None` if there is nothing to keep.
    #[must_use]
    pub const fn forgotten(self) -> Option<Self> {
        if self.is_unasked() {
            Some(Self(Self::UNASKED))
        } else {
            None
        }
    }
}

/// Notes on datagrams that the fence sends to the host. They distinguish a peer that sends first from one that answers.
/// Each note is stored with a time, in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// A port of the host to which the fence sent a request; with the time of the first.
    Asked(u16),
    /// A port of the fence from which it sent a request; with the time of the first.
    AskedFrom(u16),
    /// An address and port of the fence from which it sends over loopback; with the time of the last datagram. Pairs
    /// that share a slot count as one.
    Own(Halves, u16),
    /// A sender, by address and port, that may be answering a request of the time before a change of the policy; with
    /// the time of its last datagram. Senders that share a slot count as one.
    Answering(Halves, u16),
}

impl Noted {
    /// The key in the trie.
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

/// The number of possible keys.
pub const NOTED: usize = 4 << 16;

/// A 16-bit hash of an address and a port, in which neighbouring ports get different slots.
#[inline(always)]
const fn slot(address: Halves, port: u16) -> u32 {
    // The odd constants are the prime of FNV-1a and the golden ratio.
    let mixed = (address.upper ^ address.lower.rotate_left(32)).wrapping_mul(0x0000_0100_0000_01b3)
        ^ port as u64;
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32
}

/// How long after the fence has sent from an address and port, in nanoseconds, a datagram from there that arrives over
/// loopback counts as the fence's own. A datagram takes less time than this. Without this rule, the fence's own address
/// and port would become a peer, by way of a port that a rule allows. The next process on the host with that port would
/// then be that peer.
pub const OWN_FOR_NS: u64 = 10_000_000_000;

/// How long after a change of the policy, in nanoseconds, a datagram may be an answer to an earlier request, if the
/// fence had sent any request from the port at which it arrives. Each such datagram extends the time for its sender by
/// as much.
pub const ANSWERS_FOR_NS: u64 = 600_000_000_000;

/// The facts about a datagram that arrives over loopback from a peer to which the fence sent no request. The fields are
/// no `Option`s: the compiler would read the value of an `Option` before its discriminant, and the verifier refuses to
/// read uninitialised memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The time of arrival, in nanoseconds since boot, like the other times.
    pub now_ns: u64,
    /// The time of the fence's first request from the port at which the datagram arrives; [`u64::MAX`] if there was
    /// none.
    pub asked_ns: u64,
    /// The time of the last change of the policy.
    pub changed_ns: u64,
    /// The time of the last note of its sender as [`Noted::Answering`]; 0 if there is none.
    pub answering_ns: u64,
}

impl Arrival {
    /// Whether the datagram may be an answer, from any port, to a request that the fence made under an earlier policy.
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
            // A time in the future comes from no clock that is used here.
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
        // A random hash would take 41,427 slots.
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
        // The request was made under the current policy: only its receiver may answer.
        let asked_anew = Arrival {
            asked_ns: 50,
            ..goes_on
        };
        assert!(!asked_anew.may_be_an_answer());
    }
}
