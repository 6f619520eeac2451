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

/// The time of silence after which a peer is forgotten, in nanoseconds: five minutes. RFC 4787 (REQ-5) asks a NAT for
/// that by default, and for two minutes at least; libslirp keeps the way back open for four. Only datagrams from the peer
/// count: a guest cannot keep the exception alive by using it.
pub const SILENCE_NS: u64 = 300_000_000_000;

/// The state of the list of places, from which room for a new peer is made: the value of the map of that name. The words
/// are hints: each CPU reads and writes them without a lock, and a place belongs to the program that adds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Room {
    /// The number of places in use. It grows if none of the places that are looked at is free.
    pub size: u32,
    /// The place that is looked at next.
    pub next: u32,
}

const _: () = assert!(size_of::<Room>() == 8 && align_of::<Room>() == 4);

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Room {}

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

    /// Whether the reply exception applies now: the last datagram is recent enough, and came after the last change of
    /// the policy.
    #[must_use]
    #[inline(always)]
    pub const fn may_be_answered(self, now_ns: u64, changed_ns: u64) -> bool {
        self.0 > changed_ns && !self.is_silent(now_ns)
    }

    /// Whether the peer has been silent for so long that its place may be given to another one.
    #[must_use]
    #[inline(always)]
    pub const fn is_silent(self, now_ns: u64) -> bool {
        // The distance to a time in the future is a very large number; so is that of no time.
        self.0 <= Self::UNASKED || now_ns.wrapping_sub(self.0 & !Self::UNASKED) >= SILENCE_NS
    }

    /// Whether a request to the peer counts as a reply to it. After a change of the policy, only a peer that spoke before
    /// the fence had asked anybody counts still; for any other, the new policy decides.
    #[must_use]
    #[inline(always)]
    pub const fn spoke_first(self, changed_ns: u64) -> bool {
        self.is_unasked() || self.0 > changed_ns
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
    /// with the same hash count as one.
    Own(Halves, u16),
    /// A sender, by address and port, that may be answering a request of the time before a change of the policy; with
    /// the time of its last datagram. Senders with the same hash count as one.
    Answering(Halves, u16),
}

impl Noted {
    /// The key in the trie.
    #[must_use]
    #[inline(always)]
    pub const fn key(self) -> u64 {
        match self {
            Self::Asked(port) => port as u64,
            Self::AskedFrom(port) => 1 << 32 | port as u64,
            Self::Own(address, port) => 2 << 32 | hash(address, port),
            Self::Answering(address, port) => 3 << 32 | hash(address, port),
        }
    }
}

/// The maximum number of notes. If there are more, no datagram makes a peer from then on.
pub const NOTED: usize = 4 << 16;

/// A 32-bit hash of an address and a port, in which neighbouring ports differ. A peer whose hash is that of an end of the
/// fence is not answered, so few may be alike.
#[inline(always)]
const fn hash(address: Halves, port: u16) -> u64 {
    // The odd constants are the prime of FNV-1a and the golden ratio.
    let mixed = (address.upper ^ address.lower.rotate_left(32)).wrapping_mul(0x0000_0100_0000_01b3)
        ^ port as u64;
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
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
    extern crate std;

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_peer_is_forgotten_after_five_minutes() {
        const MINUTE_NS: u64 = 60_000_000_000;
        let last = 4;
        for unasked in [false, true] {
            let heard = Heard::now(last, unasked);
            assert_eq!(heard.is_unasked(), unasked);
            for later in [1, MINUTE_NS, 4 * MINUTE_NS, 5 * MINUTE_NS - 1] {
                assert!(heard.may_be_answered(last + later, 0), "{later}");
                assert!(!heard.is_silent(last + later), "{later}");
            }
            let after = last + 5 * MINUTE_NS;
            assert!(!heard.may_be_answered(after, 0) && heard.is_silent(after));
            // A time in the future comes from no clock that is used here.
            assert!(!heard.may_be_answered(last - 1, 0));
        }
        assert!(Heard::now(0, true).is_silent(0));
    }

    #[test]
    fn after_a_change_it_is_known_who_spoke_unasked_and_answered_by_nobody() {
        let (heard, changed) = (4, 6);
        for unasked in [false, true] {
            let before = Heard::now(heard, unasked);
            assert!(before.may_be_answered(changed, heard - 1));
            assert!(!before.may_be_answered(changed, changed));
            assert_eq!(before.spoke_first(changed), unasked);
            let again = Heard::now(changed + 2, unasked);
            assert!(again.may_be_answered(changed + 2, changed) && again.spoke_first(changed));
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
            assert_eq!(keys.map(|key| key >> 32), [0, 1, 2, 3]);
        }
    }

    #[test]
    fn each_end_of_an_address_has_a_key_of_its_own() {
        let addresses = [Halves::from_v4(0x7f00_0001), Halves { upper: 0, lower: 1 }];
        let keys = addresses
            .into_iter()
            .flat_map(|address| (0..=u16::MAX).map(move |port| Noted::Own(address, port).key()));
        let keys: BTreeSet<u64> = keys.collect();
        assert_eq!(keys.len(), addresses.len() << 16);
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
