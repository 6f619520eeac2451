//! Counts refusals, and puts each on record.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_ktime_get_boot_ns,
    },
};
use qfence_common::{Address, Event, Sighting, abi::Counter};

use crate::{
    judge::{PROCEED, REJECT},
    maps::{COUNTERS, EVENTS, HITS, NAMES_CALLER, SIGHTINGS},
};

/// What was refused, and why.
pub(crate) struct Refusal {
    pub(crate) address: Address,
    pub(crate) port: u32,
    pub(crate) protocol: u32,
    pub(crate) hook: u32,
    pub(crate) rule: u32,
}

/// Who tried.
pub(crate) struct Author {
    pub(crate) pid: u32,
    pub(crate) comm: [u8; 16],
    pub(crate) cgroup: u64,
}

impl Author {
    /// The process that is running, at hooks where not every kernel tells that: there it is one of
    /// which no more is known than its cgroup.
    #[inline(always)]
    pub(crate) fn current_if_known() -> Self {
        if NAMES_CALLER.load() != 0 {
            return Self::current();
        }
        Self {
            pid: 0,
            comm: [0; 16],
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
        }
    }

    /// The process that is running: the right one wherever a call is judged.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self {
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
            comm: bpf_get_current_comm().unwrap_or([0; 16]),
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
        }
    }
}

/// Refuses: counts it, and puts it on record; one that the ring has no room for is counted as lost. Where
/// the policy is only monitored that is all, and it goes on. Returns what the hook is to return.
#[inline(always)]
pub(crate) fn refuse(what: &Refusal, who: &Author, monitored: bool) -> i32 {
    count(if monitored {
        Counter::Monitored
    } else {
        Counter::Refused
    });
    record(what, who, monitored);
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

/// Counts the verdict of a rule, for a call or for a packet.
#[inline(always)]
pub(crate) fn hit(rule: u32, is_call: bool) {
    let Some(hits) = HITS.get_ptr_mut(rule) else {
        return;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let calls = unsafe { &raw mut (*hits).calls };
    // SAFETY: as above.
    let packets = unsafe { &raw mut (*hits).packets };
    add_one(if is_call { calls } else { packets });
}

#[inline(always)]
fn record(what: &Refusal, who: &Author, monitored: bool) {
    let Some(mut slot) = EVENTS.reserve(0) else {
        count(Counter::Lost);
        return;
    };
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    slot.write(Event {
        boot_ns,
        cgroup: who.cgroup,
        address: what.address,
        comm: who.comm,
        pid: who.pid,
        port: what.port,
        protocol: what.protocol,
        hook: what.hook,
        rule: what.rule,
        monitored: u32::from(monitored),
    });
    slot.submit(0);
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
    // SAFETY: the caller's: a map's value, aligned and alive as long as the program runs. Atomic although
    // most are this CPU's own: another task may preempt the program and run it here too.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
}
