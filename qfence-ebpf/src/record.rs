//! Counts refusals, and puts each on record.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid, bpf_ktime_get_boot_ns,
    },
};
use qfence_common::{
    Action, Address, Event, Kind, Origin, Protocol, Repeats, Sighting, Way,
    abi::Counter,
    tally::{Class, verdict_index},
};

use crate::{
    judge::{PROCEED, REJECT},
    maps::{COUNTERS, EVENTS, HITS, NAMES_CALLER, REPEATS, SIGHTINGS, TRAFFIC, VERDICTS},
};

/// What was refused, and why.
pub(crate) struct Refusal {
    pub(crate) address: Address,
    pub(crate) port: u32,
    pub(crate) protocol: u32,
    pub(crate) hook: u32,
    pub(crate) rule: u32,
    /// Where from; zero if there is no telling.
    pub(crate) source: Address,
    pub(crate) source_port: u32,
}

/// Who tried.
pub(crate) struct Author {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) uid: u32,
    /// The cookie of the network namespace; 0 if there is no telling.
    pub(crate) netns: u64,
    pub(crate) comm: [u8; 16],
    pub(crate) cgroup: u64,
}

impl Author {
    /// The process that is running, at hooks where not every kernel tells that: there it is one of
    /// which no more is known than its cgroup.
    #[inline(always)]
    pub(crate) fn current_if_known() -> Self {
        if NAMES_CALLER.load() != 0 {
            return Self::current(0);
        }
        Self {
            pid: 0,
            tid: 0,
            uid: lower(bpf_get_current_uid_gid()),
            netns: 0,
            comm: [0; 16],
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
        }
    }

    /// The process that is running: the right one wherever a call is judged.
    #[inline(always)]
    pub(crate) fn current(netns: u64) -> Self {
        let ids = bpf_get_current_pid_tgid();
        Self {
            pid: lower(ids >> 32),
            tid: lower(ids),
            uid: lower(bpf_get_current_uid_gid()),
            netns,
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
        }
    }
}

/// The lower half of a pair of numbers.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn lower(pair: u64) -> u32 {
    pair as u32
}

/// Refuses: puts it on record, and counts it. Where the policy is only monitored that is all, and it goes on.
/// Returns what the hook is to return.
#[inline(always)]
pub(crate) fn refuse(what: &Refusal, who: &Author, monitored: bool) -> i32 {
    count(record(what, who, monitored));
    count(if monitored {
        Counter::Monitored
    } else {
        Counter::Refused
    });
    if monitored { PROCEED } else { REJECT }
}

/// Keeps a destination that monitor mode lets through, for a policy to be made of it. Where there is no
/// room for it, it is counted.
#[inline(always)]
pub(crate) fn sight(what: &Refusal) {
    let sighting = Sighting {
        address: what.address,
        port: what.port,
        protocol: what.protocol,
    };
    if let Some(value) = SIGHTINGS.get_ptr_mut(sighting) {
        add_one(value);
    } else if SIGHTINGS
        .insert(sighting, 1, u64::from(BPF_NOEXIST))
        .is_err()
    {
        count(Counter::Unlisted);
    }
}

/// Counts a verdict: by action and protocol, and for the rule that gave it, by calls and packets.
#[inline(always)]
pub(crate) fn hit(rule: u32, action: Action, protocol: Protocol, is_call: bool) {
    if let Some(verdicts) = VERDICTS.get_ptr_mut(verdict_index(action, Class::of(protocol))) {
        add_one(verdicts);
    }
    let Some(hits) = HITS.get_ptr_mut(rule) else {
        return;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let calls = unsafe { &raw mut (*hits).calls };
    // SAFETY: as above.
    let packets = unsafe { &raw mut (*hits).packets };
    add_one(if is_call { calls } else { packets });
}

/// Puts an attempt on record.
#[inline(always)]
fn record(what: &Refusal, who: &Author, monitored: bool) -> Counter {
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    tell(&Event {
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
                reserved: 0,
            },
        },
        kind: Kind {
            address: what.address,
            pid: who.pid,
            port: what.port,
            protocol: what.protocol,
            hook: what.hook,
            rule: what.rule,
            monitored: u32::from(monitored),
        },
    })
}

/// Tells of the first of a kind by an event, and counts the others. Returns which of them it was; where there
/// is room for neither it is lost.
#[inline(never)]
fn tell(event: &Event) -> Counter {
    let Some(kinds) = REPEATS.get(0) else {
        return Counter::Lost;
    };
    let Event { repeats, kind } = event;
    if repeat(kinds.find(kind), repeats.last_ns) {
        return Counter::Repeated;
    }
    if kinds.add(kind, repeats)
        && let Some(mut slot) = EVENTS.reserve(0)
    {
        slot.write(*event);
        slot.submit(0);
        return Counter::First;
    }
    // The ring is full, or another CPU made the kind known just now.
    if repeat(kinds.find(kind), repeats.last_ns) {
        return Counter::Repeated;
    }
    Counter::Lost
}

/// Counts one more of a kind, if it is known.
#[inline(always)]
fn repeat(repeats: *mut Repeats, boot_ns: u64) -> bool {
    if repeats.is_null() {
        return false;
    }
    // SAFETY: a value of the map's, aligned and alive as long as the program runs.
    let count = unsafe { &raw mut (*repeats).count };
    // SAFETY: as above.
    let last = unsafe { &raw mut (*repeats).last_ns };
    add_one(count);
    // SAFETY: as above; a word, which others see whole.
    unsafe { last.write_volatile(boot_ns) };
    true
}

/// Counts a call of connect(), or a packet by its length.
#[inline(always)]
pub(crate) fn traffic(way: Way, packet: Option<u32>) {
    let Some(traffic) = TRAFFIC.get_ptr_mut(way as u32) else {
        return;
    };
    // SAFETY: a value of the map's, aligned and alive as long as the program runs.
    let connects = unsafe { &raw mut (*traffic).connects };
    // SAFETY: as above.
    let packets = unsafe { &raw mut (*traffic).packets };
    // SAFETY: as above.
    let bytes = unsafe { &raw mut (*traffic).bytes };
    match packet {
        Some(length) => {
            add_one(packets);
            add(bytes, u64::from(length));
        }
        None => add_one(connects),
    }
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        add_one(value);
    }
}

/// Adds one to a counter in a map.
#[inline(always)]
fn add_one(value: *mut u64) {
    add(value, 1);
}

/// Adds to a counter in a map.
#[inline(always)]
fn add(value: *mut u64, more: u64) {
    // SAFETY: the caller's: a map's value, aligned and alive as long as the program runs. Atomic although
    // most are this CPU's own: another task may preempt the program and run it here too.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, more) };
}
