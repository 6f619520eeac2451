//! Counters. Each CPU has its own words.

use core::{
    hint::cold_path,
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::null_mut,
};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use qfence_common::{
    Hits, Passed, RuleCounts, Tally,
    abi::Counter,
    tally::{more_hits_index, tally_index_of},
    verdict::MAX_RULES,
};

use crate::maps::{COUNTERS, HITS, MORE_HITS, TALLIES, inner::Inner as _};

/// Counts a decision of a rule on a call, or else on a packet.
#[inline(always)]
pub(crate) fn hit(rule: u32, is_call: bool) {
    qfence_hit(rule, is_call.into());
}

/// Counts a call that a rule allows: as a decision, and if `passes`, also as UDP that goes on. Returns whether it was
/// counted as that. In the common case no function is called.
#[inline(always)]
pub(crate) fn hit_by_call(rule: u32, passes: bool, connects: bool) -> bool {
    let Some(counts) = HITS.get_ptr_mut(rule) else {
        cold_path();
        hit(rule, true);
        return false;
    };
    if passes {
        let passed = passed(counts);
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let connect = unsafe { &raw mut (*passed).connects };
        // SAFETY: as above.
        let send = unsafe { &raw mut (*passed).sends };
        add(if connects { connect } else { send }, 1);
    } else {
        add_hit(others(counts), true);
    }
    passes
}

/// The same for a packet of `length` bytes.
#[inline(always)]
pub(crate) fn hit_by_packet(rule: u32, passes: bool, length: u32) -> bool {
    hit_by(add, rule, passes, length)
}

/// The same for a frame that goes on, with [`add_in_softirq`].
#[inline(always)]
pub(crate) fn hit_by_frame(rule: u32, passes: bool, length: u32) -> bool {
    hit_by(add_in_softirq, rule, passes, length)
}

#[inline(always)]
fn hit_by(add: impl Fn(*mut u64, u64), rule: u32, passes: bool, length: u32) -> bool {
    let Some(counts) = HITS.get_ptr_mut(rule) else {
        cold_path();
        hit(rule, false);
        return false;
    };
    if passes {
        let passed = passed(counts);
        // SAFETY: the map's value, aligned and alive as long as the program runs.
        let packets = unsafe { &raw mut (*passed).packets };
        // SAFETY: as above.
        let bytes = unsafe { &raw mut (*passed).bytes };
        add(packets, 1);
        add(bytes, u64::from(length));
    } else {
        // SAFETY: as above.
        add(unsafe { &raw mut (*others(counts)).packets }, 1);
    }
    passes
}

#[inline(always)]
fn passed(counts: *mut RuleCounts) -> *mut Passed {
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    unsafe { &raw mut (*counts).passed }
}

#[inline(always)]
fn others(counts: *mut RuleCounts) -> *mut Hits {
    // SAFETY: as above.
    unsafe { RuleCounts::others(counts) }
}

#[inline(always)]
fn add_hit(hits: *mut Hits, is_call: bool) {
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let calls = unsafe { &raw mut (*hits).calls };
    // SAFETY: as above.
    let packets = unsafe { &raw mut (*hits).packets };
    add(if is_call { calls } else { packets }, 1);
}

/// Returns 0, because a global function must return a value. Global: see `judge/policy.rs`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_hit(rule: u32, is_call: u32) -> u32 {
    let hits = HITS
        .get_ptr_mut(rule)
        .map_or_else(|| more_hits(rule), others);
    if hits.is_null() {
        return 0;
    }
    add_hit(hits, is_call != 0);
    0
}

/// Returns the counters of a rule whose number is beyond the end of HITS; null if no rule has this number.
#[inline(always)]
fn more_hits(rule: u32) -> *mut Hits {
    let Some(more) = MORE_HITS.get(0) else {
        return null_mut();
    };
    if rule >= MAX_RULES {
        return null_mut();
    }
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let hits = more.find(&more_hits_index(rule, cpu));
    if !hits.is_null() {
        return hits;
    }
    // CPU numbers can have gaps. CPUs whose number is not below their count share the counters of the first CPU.
    more.find(&more_hits_index(rule, 0))
}

/// Counts a judged call: connect(), or a call that sends a datagram. `outcome` is its number, and `class` a
/// [number](qfence_common::tally::Class::number): a value for each of them would be checked by itself.
#[inline(always)]
pub(crate) fn tally_call(outcome: u32, class: u32, connects: bool) {
    let Some(tally) = tally(outcome, class) else {
        return;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let connect = unsafe { &raw mut (*tally).connects };
    // SAFETY: as above.
    let send = unsafe { &raw mut (*tally).sends };
    add(if connects { connect } else { send }, 1);
}

/// Counts a packet of `length` bytes. `outcome` and `class` are as above.
#[inline(always)]
pub(crate) fn tally_packet(outcome: u32, class: u32, is_judged: bool, length: u32) {
    tally_packet_by(add, outcome, class, is_judged, length);
}

/// As [`tally_packet`] for a frame that goes on or a packet that arrives, with [`add_in_softirq`].
#[inline(always)]
pub(crate) fn tally_in_softirq(outcome: u32, class: u32, is_judged: bool, length: u32) {
    tally_packet_by(add_in_softirq, outcome, class, is_judged, length);
}

#[inline(always)]
fn tally_packet_by(
    add: impl Fn(*mut u64, u64),
    outcome: u32,
    class: u32,
    is_judged: bool,
    length: u32,
) {
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
fn tally(outcome: u32, class: u32) -> Option<*mut Tally> {
    TALLIES.get_ptr_mut(tally_index_of(outcome, class))
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
    // SAFETY: the caller passes a word of a map's value, aligned and alive as long as the program runs. The addition is
    // atomic although most words belong to this CPU: another task may preempt the program and run it on the same CPU.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, more) };
}

/// As [`add`] where the kernel runs the program with softirqs disabled, which takes 8 ns less: neither another such program nor
/// another task runs on this CPU meanwhile. So it does for frames, and for packets that arrive (they come to
/// `sk_filter_trim_cap` from `netif_receive_skb`), except those in the backlogs of L2TP over IP and of DCCP over IPv6. The
/// counts of these can be lost, and under PREEMPT_RT those of what preempts the program.
#[inline(always)]
fn add_in_softirq(value: *mut u64, more: u64) {
    // SAFETY: as above.
    let before = unsafe { value.read() };
    // SAFETY: as above. Addition wraps, as the atomic one does.
    unsafe { value.write(before.wrapping_add(more)) };
}
