//! Network namespaces: recognises the fence's home and the namespaces that were made in the fence. All others are
//! foreign.
//!
//! For example, a rootless container of the same user has a namespace that a process of the fence can join (setns(2)).
//! Its way out, pasta or slirp4netns, runs outside the fence, and its gateway is the host. Such a namespace is foreign.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::SockContext};
use qfence_common::netns::MAX_LEVELS;

use crate::maps::{FENCE_CGROUP, MARKS, NETNS_OFFSETS, NODE_NETNS, marks::marks};

/// The relation of a network namespace to the fence.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The namespace in which the fence was started.
    Home,
    /// It was made by a process of the fence.
    Inside,
    /// It was made outside the fence, or its maker is unknown.
    Foreign,
}

/// Returns the relation of a new socket's network namespace, which has this cookie, to the fence. The namespace of the
/// first socket becomes the fence's home.
#[inline(always)]
pub(crate) fn place(ctx: &SockContext, cookie: u64) -> Place {
    let Some(marks) = MARKS.get_ptr_mut(0) else {
        return Place::Foreign;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let home = unsafe { &raw mut (*marks).home };
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    match unsafe { home.read_volatile() } {
        // SAFETY: as above.
        0 => unsafe { home.write_volatile(cookie) },
        home if home == cookie => {}
        _ if was_made_in_the_fence(ctx) => {
            // SAFETY: as above.
            let inside = unsafe { &raw mut (*marks).inside_sockets };
            // SAFETY: as above.
            unsafe { inside.write_volatile(1) };
            return Place::Inside;
        }
        _ => return Place::Foreign,
    }
    Place::Home
}

/// Whether any socket was created in a network namespace that was made in the fence.
#[inline(always)]
pub(crate) fn has_inside_sockets() -> bool {
    marks().is_some_and(|marks| marks.inside_sockets != 0)
}

/// Whether this is the cookie of the fence's home.
#[inline(always)]
pub(crate) fn is_home(cookie: u64) -> bool {
    marks().is_some_and(|marks| marks.home == cookie)
}

/// Whether this is the cookie of a network namespace of a workload's own: another one than that with the host's addresses.
#[inline(always)]
pub(crate) fn is_of_workload(cookie: u64) -> bool {
    let node = NODE_NETNS.load();
    node != 0 && cookie != 0 && cookie != node
}

/// Whether the network namespace of a socket was made by a process of the fence; see [`qfence_common::netns`]. False if
/// it cannot be read.
#[inline(always)]
fn was_made_in_the_fence(ctx: &SockContext) -> bool {
    let offsets = NETNS_OFFSETS.load();
    let fence = FENCE_CGROUP.load();
    if offsets.are_known == 0 || fence == 0 {
        return false;
    }
    // At run time the context is the address of the kernel's socket (`__cgroup_bpf_run_filter_sk`). The offset is
    // masked, because the verifier requires a bound for numbers that are added to a context.
    let socket = ctx.sock as u64;
    let namespace = read(socket + u64::from(offsets.sock_net & MOST));
    let rtnl = read(namespace + u64::from(offsets.net_rtnl));
    is_of_the_fence(read(rtnl + u64::from(offsets.sock_cgroup)))
}

/// Whether the cgroup at an address is the fence's, or below it.
#[inline(always)]
pub(crate) fn is_of_the_fence(cgroup: u64) -> bool {
    let mut cgroup = cgroup;
    for _ in 0..MAX_LEVELS / STRIDE {
        cgroup = qfence_cgroups_above(cgroup);
        if cgroup <= IS_THE_FENCE {
            break;
        }
    }
    cgroup == IS_THE_FENCE
}

/// The number of cgroups that one call of a global function checks.
const STRIDE: usize = 4;

const _: () = assert!(MAX_LEVELS.is_multiple_of(STRIDE));

/// Applies [`qfence_cgroup_above`] up to `STRIDE` times.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_cgroups_above(cgroup: u64) -> u64 {
    let mut cgroup = cgroup;
    for _ in 0..STRIDE {
        cgroup = qfence_cgroup_above(cgroup);
        if cgroup <= IS_THE_FENCE {
            break;
        }
    }
    cgroup
}

/// The result if the fence's cgroup was found. It is no address.
const IS_THE_FENCE: u64 = 1;

/// Returns the address of the parent of a cgroup; [`IS_THE_FENCE`] if the cgroup is the fence's; 0 if there is no
/// parent. Global (see `judge/policy.rs`), so that the verifier does not check it again in each iteration of a loop.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_cgroup_above(cgroup: u64) -> u64 {
    // Before Linux 5.15 a set lowest bit means that the word is a class of cgroup v1.
    if cgroup == 0 || cgroup & 1 != 0 {
        return 0;
    }
    let offsets = NETNS_OFFSETS.load();
    let node = read(cgroup + u64::from(offsets.cgroup_node));
    if read(node + u64::from(offsets.node_id)) == FENCE_CGROUP.load() {
        return IS_THE_FENCE;
    }
    above(cgroup)
}

/// Returns the address of the parent of a cgroup; 0 if there is none.
#[inline(always)]
pub(crate) fn above(cgroup: u64) -> u64 {
    let offsets = NETNS_OFFSETS.load();
    let above = read(cgroup + u64::from(offsets.cgroup_parent));
    // The lowest bit of an address is never set.
    above.saturating_sub(u64::from(offsets.cgroup_self)) & !IS_THE_FENCE
}

/// An upper bound of offsets in a socket.
const MOST: u32 = 0xfff;

/// Reads a word of kernel memory; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn read(address: u64) -> u64 {
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.unwrap_or(0)
}
