//! The process behind a call or a packet.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::bpf_get_current_comm,
};
use qfence_common::{Comm, NO_UID};

use crate::maps::{FENCE_CGROUP, NAMES_CALLER};

/// The process that made an attempt.
pub(crate) struct Author {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) uid: u32,
    /// Flags of the socket: [`qfence_common::event::GUEST`], or zero.
    pub(crate) flags: u32,
    /// The cookie of the network namespace; 0 if unknown.
    pub(crate) netns: u64,
    pub(crate) comm: Comm,
    pub(crate) cgroup: u64,
}

impl Author {
    /// Returns the current process, at hooks that lack the helpers for it on older kernels. There, only its user and
    /// its cgroup are known.
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

    /// Returns the current process. At the hooks for calls this is the right one.
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
    /// Returns an unknown process of the fence, on whose behalf the kernel acts.
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

    /// Whether it is in the root cgroup, like kernel threads, and so outside the fence.
    #[inline(always)]
    pub(crate) fn is_outside(&self) -> bool {
        self.cgroup == ROOT_CGROUP
    }
}

/// The id of the root cgroup: the first inode of its file system (`cgroup_setup_root` in kernel/cgroup/cgroup.c, by
/// `kernfs_create_root`).
const ROOT_CGROUP: u64 = 1;

/// Returns the name of the current thread.
#[inline(always)]
fn current_comm() -> Comm {
    let mut comm = Comm::NONE;
    // SAFETY: the buffer has 16 bytes. The helper does not fail for threads that run programs on cgroups. If it failed,
    // it would write zeros.
    unsafe { bpf_get_current_comm((&raw mut comm).cast::<c_void>(), 16) };
    comm
}

/// Returns the lower half of a pair of numbers.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn lower(pair: u64) -> u32 {
    pair as u32
}
