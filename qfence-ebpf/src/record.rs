//! Counts refusals, and puts each on record.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    bpf_ktime_get_boot_ns, generated::bpf_get_current_comm,
};
use qfence_common::{Comm, Event, Halves, Kind, NO_UID, Origin, Repeats, Sighting, abi::Counter};

use crate::{
    count::{add, count},
    inner::{Inner as _, Sightings, WholeKind},
    judge::{PROCEED, REJECT},
    maps::{EVENTS, FENCE_CGROUP, MORE_REPEATS, NAMES_CALLER, REPEATS, SIGHTINGS},
    marks,
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

/// Who tried.
pub(crate) struct Author {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) uid: u32,
    /// What is known of the socket: [`qfence_common::event::GUEST`], or zero.
    pub(crate) flags: u32,
    /// The cookie of the network namespace; 0 if there is no telling.
    pub(crate) netns: u64,
    pub(crate) comm: Comm,
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
            flags: 0,
            netns: 0,
            comm: Comm::NONE,
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
            flags: 0,
            netns,
            comm: current_comm(),
            // SAFETY: a helper without arguments.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
        }
    }
}

impl Author {
    /// Somebody in the fence, of whom no more is known: the kernel acts for them.
    #[inline(always)]
    pub(crate) fn of_the_fence(netns: u64) -> Self {
        Self {
            pid: 0,
            tid: 0,
            uid: NO_UID,
            flags: 0,
            netns,
            comm: Comm::NONE,
            cgroup: FENCE_CGROUP.load(),
        }
    }

    /// Whether it is in the root cgroup, as kernel threads are, and so not in the fence.
    #[inline(always)]
    pub(crate) fn is_outside(&self) -> bool {
        self.cgroup == ROOT_CGROUP
    }
}

/// The id of the root cgroup: the first inode of its file system (`cgroup_setup_root` in kernel/cgroup/cgroup.c, by
/// `kernfs_create_root`).
const ROOT_CGROUP: u64 = 1;

/// The name of the thread that is running.
#[inline(always)]
fn current_comm() -> Comm {
    let mut comm = Comm::NONE;
    // SAFETY: there is room for that many bytes. It fails for none of the threads of a program for cgroups,
    // and writes zeros where it does.
    unsafe { bpf_get_current_comm((&raw mut comm).cast::<c_void>(), 16) };
    comm
}

/// The lower half of a pair of numbers.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn lower(pair: u64) -> u32 {
    pair as u32
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
        kind: Kind {
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

/// Tells of the first of a kind by an event, and counts the others. Returns which of them it was; where there
/// is room for neither it is lost.
#[inline(always)]
fn tell(event: &Event) -> Counter {
    let Some(kinds) = REPEATS.get(0) else {
        return Counter::Lost;
    };
    let Event { repeats, kind } = event;
    if repeat(kinds.find(kind), repeats.last_ns) {
        return Counter::Repeated;
    }
    if kinds.add(kind, repeats) && EVENTS.output(event, 0).is_ok() {
        return Counter::First;
    }
    // The ring is full, or another CPU made the kind known just now.
    if repeat(kinds.find(kind), repeats.last_ns) || repeat_more(kind, repeats) {
        return Counter::Repeated;
    }
    Counter::Lost
}

/// Counts one more of a kind for which there is no room among the others; whether there is room for it at all.
///
/// Before Linux 6.13 a trie takes what is there already (it heeds no `BPF_NOEXIST`). If two CPUs are the first to try
/// one kind at the same moment, what one of them counted may be gone then: no line tells of it, and so the reader says
/// that it is lost.
#[inline(never)]
fn repeat_more(kind: &Kind, repeats: &Repeats) -> bool {
    let Some(more) = MORE_REPEATS.get(0) else {
        return false;
    };
    let key = WholeKind::new(kind);
    if repeat(more.find(&key), repeats.last_ns) {
        return true;
    }
    more.add(&key, repeats);
    repeat(more.find(&key), repeats.last_ns)
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
    add(count, 1);
    // SAFETY: as above; a word, which others see whole.
    unsafe { last.write_volatile(boot_ns) };
    true
}
