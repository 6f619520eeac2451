//! Counts refusals, and puts each on record.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_ktime_get_boot_ns,
};
use qfence_common::{Address, Event, abi::Counter};

use crate::maps::{COUNTERS, EVENTS};

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
    /// Some process of which no more is known than its cgroup.
    #[inline(always)]
    pub(crate) fn unknown() -> Self {
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

/// Counts a refusal, and puts it on record; one that the ring has no room for is counted as lost.
#[inline(always)]
pub(crate) fn refused(what: &Refusal, who: &Author) {
    count(Counter::Refused);
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
        reserved: 0,
    });
    slot.submit(0);
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map's value, aligned and alive as long as the program runs. Atomic although it
        // is this CPU's own: another task may preempt the program and run it here too.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}
