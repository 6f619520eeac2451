//! Counts, each in a word of this CPU's.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use qfence_common::{
    Outcome, Tally,
    abi::Counter,
    tally::{Class, tally_index},
};

use crate::maps::{COUNTERS, HITS, TALLIES};

/// Counts a decision of a rule: of a call, or else of a packet.
#[inline(always)]
pub(crate) fn hit(rule: u32, is_call: bool) {
    let Some(hits) = HITS.get_ptr_mut(rule) else {
        return;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let calls = unsafe { &raw mut (*hits).calls };
    // SAFETY: as above.
    let packets = unsafe { &raw mut (*hits).packets };
    add(if is_call { calls } else { packets }, 1);
}

/// Counts a call that was judged: connect(), or one that sends a datagram.
#[inline(always)]
pub(crate) fn tally_call(outcome: Outcome, class: Class, connects: bool) {
    let Some(tally) = tally(outcome, class) else {
        return;
    };
    // SAFETY: as above.
    let connect = unsafe { &raw mut (*tally).connects };
    // SAFETY: as above.
    let send = unsafe { &raw mut (*tally).sends };
    add(if connects { connect } else { send }, 1);
}

/// Counts a packet of so many bytes.
#[inline(always)]
pub(crate) fn tally_packet(outcome: Outcome, class: Class, is_judged: bool, length: u32) {
    let Some(tally) = tally(outcome, class) else {
        return;
    };
    // SAFETY: as above.
    let judged = unsafe { &raw mut (*tally).judged };
    // SAFETY: as above.
    let unjudged = unsafe { &raw mut (*tally).unjudged };
    // SAFETY: as above.
    let bytes = unsafe { &raw mut (*tally).bytes };
    add(if is_judged { judged } else { unjudged }, 1);
    add(bytes, u64::from(length));
}

#[inline(always)]
fn tally(outcome: Outcome, class: Class) -> Option<*mut Tally> {
    TALLIES.get_ptr_mut(tally_index(outcome, class))
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        add(value, 1);
    }
}

/// Adds to a counter in a map.
#[inline(always)]
pub(crate) fn add(value: *mut u64, more: u64) {
    // SAFETY: the caller's: a map's value, aligned and alive as long as the program runs. Atomic although
    // most are this CPU's own: another task may preempt the program and run it here too.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, more) };
}
