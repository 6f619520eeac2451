//! Counts refusals, and puts each on record.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use qfence_common::{AttemptKey, Event, Halves, Origin, Repeats, Sighting, abi::Counter};

use crate::{
    account::{
        PROCEED, REJECT,
        count::{add, count},
    },
    maps::{
        EVENTS, MORE_REPEATS, REPEATS, SIGHTINGS,
        inner::{Inner as _, Sightings, WholeKey},
        marks,
    },
    subject::author::Author,
};

/// What was refused, and why.
pub(crate) struct Refusal {
    pub(crate) address: Halves,
    pub(crate) port: u32,
    pub(crate) protocol: u32,
    pub(crate) hook: u32,
    pub(crate) rule: u32,
    /// Where from; zero if there is no telling.
    pub(crate) source: Halves,
    pub(crate) source_port: u32,
}

/// Refuses what stands for as long as a socket or a device does: puts it on record, and counts it. Where the policy is
/// only monitored that is noted, and it goes on.
/// Returns what the hook is to return.
#[inline(always)]
pub(crate) fn refuse(what: &Refusal, who: &Author, monitored: bool) -> i32 {
    record(what, who, monitored);
    if !monitored {
        return REJECT;
    }
    marks::note_monitored(what.hook);
    PROCEED
}

/// Puts an attempt on record, and counts it.
#[inline(always)]
pub(crate) fn record(what: &Refusal, who: &Author, monitored: bool) {
    count(tell(&event(what, who, monitored)));
    count(if monitored {
        Counter::Monitored
    } else {
        Counter::Refused
    });
}

/// Keeps a destination that monitor mode lets through, for a policy to be made of it. Where there is no
/// room for it, or nothing to keep it in, it is counted.
#[inline(always)]
pub(crate) fn sight(what: &Refusal) {
    let sighting = Sighting {
        address: what.address,
        port: what.port,
        protocol: what.protocol,
    };
    if !SIGHTINGS
        .get(0)
        .is_some_and(|sightings| is_kept(sightings, &sighting))
    {
        count(Counter::Unlisted);
    }
}

#[inline(always)]
fn is_kept(sightings: &Sightings, sighting: &Sighting) -> bool {
    let value = sightings.find(sighting);
    if value.is_null() {
        return sightings.add(sighting, &1);
    }
    add(value, 1);
    true
}

#[inline(always)]
fn event(what: &Refusal, who: &Author, monitored: bool) -> Event {
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    Event {
        repeats: Repeats {
            count: 0,
            last_ns: boot_ns,
            origin: Origin {
                boot_ns,
                cgroup: who.cgroup,
                netns: who.netns,
                source: what.source,
                comm: who.comm,
                tid: who.tid,
                uid: who.uid,
                source_port: what.source_port,
                flags: who.flags,
            },
        },
        key: AttemptKey {
            address: what.address,
            pid: who.pid,
            port: what.port,
            protocol: what.protocol,
            hook: what.hook,
            rule: what.rule,
            monitored: u32::from(monitored),
        },
    }
}

/// Tells of the first of a key by an event, and counts the others. Returns which of them it was; where there
/// is room for neither it is lost.
#[inline(always)]
fn tell(event: &Event) -> Counter {
    let Some(keys) = REPEATS.get(0) else {
        return Counter::Lost;
    };
    let Event { repeats, key } = event;
    if repeat(keys.find(key), repeats.last_ns) {
        return Counter::Repeated;
    }
    if keys.add(key, repeats) && EVENTS.output(event, 0).is_ok() {
        return Counter::First;
    }
    // The ring is full, or another CPU made the key known just now.
    if repeat(keys.find(key), repeats.last_ns) || repeat_more(key, repeats) {
        return Counter::Repeated;
    }
    Counter::Lost
}

/// Counts one more of a key for which there is no room among the others; whether there is room for it at all.
///
/// Before Linux 6.13 a trie takes what is there already (it heeds no `BPF_NOEXIST`). If two CPUs are the first to try
/// one key at the same moment, what one of them counted may be gone then: no line tells of it, and so the reader says
/// that it is lost.
#[inline(never)]
fn repeat_more(key: &AttemptKey, repeats: &Repeats) -> bool {
    let Some(more) = MORE_REPEATS.get(0) else {
        return false;
    };
    let whole = WholeKey::new(key);
    if repeat(more.find(&whole), repeats.last_ns) {
        return true;
    }
    more.add(&whole, repeats);
    repeat(more.find(&whole), repeats.last_ns)
}

/// Counts one more of a key, if it is known.
#[inline(always)]
fn repeat(repeats: *mut Repeats, boot_ns: u64) -> bool {
    if repeats.is_null() {
        return false;
    }
    // SAFETY: a value of the map's, aligned and alive as long as the program runs.
    let count = unsafe { &raw mut (*repeats).count };
    // SAFETY: as above.
    let last = unsafe { &raw mut (*repeats).last_ns };
    add(count, 1);
    // SAFETY: as above; a word, which others see whole.
    unsafe { last.write_volatile(boot_ns) };
    true
}
