//! Who is behind a call or a packet.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::bpf_get_current_comm,
};
use qfence_common::{Comm, NO_UID};

use crate::maps::{FENCE_CGROUP, NAMES_CALLER};

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
