//! Room for the peers of the reply exception: their map grows with them, up to a bound.
//!
//! PEERS maps each peer to the time of its last datagram. PLACES has the same peers by number, so that programs, which
//! cannot iterate over a map, find those that are silent. For a new peer, a few places are looked at, in turn. If the peer of
//! one has been silent for long enough, the new peer gets its place. Otherwise the list grows by a place. If it cannot, the
//! peer that was silent for longest of these few is forgotten.
//!
//! Several CPUs do this at once, without a lock. A place belongs to the program that adds it, or that removes its peer from
//! PEERS: the kernel lets one of them succeed. Before Linux 6.13 a trie ignores `BPF_NOEXIST`, so that two programs can add one
//! place for two peers at the same moment. Both are known then, and one of them keeps its room until the fence ends.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
    helpers::bpf_map_lookup_elem,
};
use qfence_common::{
    Halves, Peer,
    abi::{self, Counter},
    peer::Heard,
};

use crate::{
    account::count::count,
    maps::{PEERS, PLACES, ROOM},
};

/// The number of places that are looked at for a new peer.
const LOOKED_AT: u32 = 4;

/// The number of places after the last one that are tried if other CPUs add places as well.
const ADDED_AT: u32 = 3;

/// Returns the state of a peer; `None` if it is unknown.
#[inline(always)]
pub(crate) fn heard(peer: &Peer) -> Option<Heard> {
    let word = word(peer);
    if word.is_null() {
        return None;
    }
    // SAFETY: the map's value, aligned and alive as long as the program runs; one word.
    Some(Heard(unsafe { word.read_volatile() }))
}

/// Sets the state of a peer. If it is unknown, and the kernel has no memory for it, replies to it are denied.
#[inline(always)]
pub(crate) fn set(peer: &Peer, heard: Heard) {
    let word = word(peer);
    if word.is_null() {
        let ports = u32::from(peer.port) << 16 | u32::from(peer.local_port);
        let Halves { upper, lower } = peer.address;
        qfence_add_peer(peer.netns, upper, lower, ports, heard.0);
        return;
    }
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    unsafe { word.write_volatile(heard.0) };
}

/// Adds a peer, given its ports in the halves of a word. Returns 0, because a global function must return a value. Global:
/// see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_add_peer(netns: u64, upper: u64, lower: u64, ports: u32, heard: u64) -> u32 {
    let is_added = add(heard, |place, how| {
        let ends = u64::from(place | how) << u32::BITS | u64::from(ports);
        qfence_try_place(netns, upper, lower, ends, heard) != 0
    });
    if !is_added {
        count(Counter::PeersForgotten);
    }
    0
}

/// In the word of a place: the place has a peer, which is removed.
const TAKES_OVER: u32 = 1 << 31;

/// Gives a place to a peer: the number of the place is in the upper half of `ends`, maybe with [`TAKES_OVER`], and the ports
/// in the lower half. Returns 1, or 0 if another program was faster, or there is no memory. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
#[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
extern "C" fn qfence_try_place(netns: u64, upper: u64, lower: u64, ends: u64, heard: u64) -> u32 {
    let peer = Peer {
        netns,
        address: Halves { upper, lower },
        port: (ends >> 16) as u16,
        local_port: ends as u16,
        reserved: 0,
    };
    let place = (ends >> u32::BITS) as u32;
    let key = place_key(place & !TAKES_OVER);
    let is_free = if place & TAKES_OVER == 0 {
        PLACES.insert(&key, peer, u64::from(BPF_NOEXIST)).is_ok()
    } else {
        take_over(&key, &peer)
    };
    (is_free && move_in(&key, &peer, Heard(heard))).into()
}

/// Adds a peer, by `try_place`. Returns false if another one is forgotten for it, or it could not be added.
#[inline(always)]
fn add(now_ns: u64, try_place: impl Fn(u32, u32) -> bool) -> bool {
    let Some(room) = ROOM.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let size = unsafe { &raw mut (*room).size };
    // SAFETY: as above. The words are hints.
    let in_use = unsafe { size.read_volatile() }.min(abi::PEERS);
    let found = Found::unpack(qfence_find_place(in_use, now_ns));
    if found.state != State::Silent {
        let first = if found.state == State::Free {
            found.place
        } else {
            in_use
        };
        for place in first..first + ADDED_AT {
            if place < abi::PEERS && try_place(place, 0) {
                if place >= in_use {
                    // SAFETY: as above. If another CPU writes a smaller number, the place is found to be in use.
                    unsafe { size.write_volatile(place + 1) };
                }
                return true;
            }
        }
    }
    if found.state == State::Free || found.state == State::Taken {
        return false;
    }
    try_place(found.place, TAKES_OVER) && found.state == State::Silent
}

/// A place.
struct Found {
    place: u32,
    state: State,
}

/// The state of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum State {
    /// It has no peer.
    Free = 0,
    /// Its peer has been silent for long.
    Silent = 1,
    /// Its peer is to be remembered.
    Used = 2,
    /// Another CPU is giving it to a peer; or there is no place.
    Taken = 3,
}

impl Found {
    const NONE: Self = Self {
        place: 0,
        state: State::Taken,
    };

    /// Packs it into one word, the return value of a global function.
    #[inline(always)]
    const fn pack(self) -> u64 {
        (self.state as u64) << u32::BITS | self.place as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    const fn unpack(word: u64) -> Self {
        Self {
            place: word as u32,
            state: match (word >> u32::BITS) as u32 {
                0 => State::Free,
                1 => State::Silent,
                2 => State::Used,
                _ => State::Taken,
            },
        }
    }
}

/// Looks for a place, as [`look`] does. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_find_place(in_use: u32, now_ns: u64) -> u64 {
    let Some(room) = ROOM.get_ptr_mut(0) else {
        return Found::NONE.pack();
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let next = unsafe { &raw mut (*room).next };
    look(next, in_use, now_ns).pack()
}

/// Looks at the next few places: returns the first that is free or whose peer is silent, or else the one whose peer was
/// silent for longest.
#[inline(always)]
fn look(next: *mut u32, in_use: u32, now_ns: u64) -> Found {
    let mut oldest = u64::MAX;
    let mut best = Found::NONE;
    if in_use == 0 {
        return best;
    }
    for _ in 0..LOOKED_AT {
        // SAFETY: a word of the map's value, aligned and alive as long as the program runs.
        let place = unsafe { next.read_volatile() } % in_use;
        // SAFETY: as above. The word is a hint.
        unsafe { next.write_volatile(place + 1) };
        let state = match qfence_heard_at(place, now_ns) {
            FREE => State::Free,
            SILENT => State::Silent,
            time if time < oldest => {
                oldest = time;
                let state = State::Used;
                best = Found { place, state };
                continue;
            }
            _ => continue,
        };
        return Found { place, state };
    }
    best
}

/// In place of a time: the place has no peer; its peer has been silent for long; another CPU is giving it to a peer. No
/// peer was heard at the first two.
const FREE: u64 = 0;
const SILENT: u64 = 1;
const TAKEN: u64 = u64::MAX;

/// Returns the time of the last datagram of the peer at a place, or one of the above. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_heard_at(place: u32, now_ns: u64) -> u64 {
    let Some(peer) = PLACES.get(&place_key(place)) else {
        return FREE;
    };
    match heard(peer) {
        None => TAKEN,
        Some(heard) if heard.is_silent(now_ns) => SILENT,
        Some(heard) => heard.0,
    }
}

/// Gives the place of a peer to another. Returns false if another program was faster, or there is no memory.
#[inline(always)]
fn take_over(place: &Key<u64>, peer: &Peer) -> bool {
    let Some(other) = PLACES.get(place).copied() else {
        return false;
    };
    if PEERS.remove(&peer_key(&other)).is_err() {
        return false;
    }
    if PLACES.insert(place, *peer, u64::from(BPF_ANY)).is_err() {
        let _ = PLACES.remove(place);
        return false;
    }
    true
}

/// Adds a peer whose place is noted. If another program added the same peer, at another place, this place becomes free.
#[inline(always)]
fn move_in(place: &Key<u64>, peer: &Peer, heard: Heard) -> bool {
    let is_added = PEERS
        .insert(&peer_key(peer), heard.0, u64::from(BPF_NOEXIST))
        .is_ok();
    if !is_added {
        let _ = PLACES.remove(place);
    }
    is_added
}

/// Returns the address of the state of a peer; null if it is unknown.
#[inline(always)]
fn word(peer: &Peer) -> *mut u64 {
    let key = peer_key(peer);
    let map = (&raw const PEERS).cast_mut().cast::<c_void>();
    // SAFETY: a map, and a key of the map's size.
    unsafe { bpf_map_lookup_elem(map, (&raw const key).cast()) }.cast()
}

/// Makes a trie key with full prefix length.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
fn peer_key(peer: &Peer) -> Key<Peer> {
    Key::new(8 * size_of::<Peer>() as u32, *peer)
}

/// Makes a trie key, which has eight bytes so that the value after it is aligned.
#[inline(always)]
fn place_key(place: u32) -> Key<u64> {
    Key::new(u64::BITS, u64::from(place))
}
