//! Network namespaces: which is the fence's home, and which were made in the fence.
//!
//! Somebody's rootless container has a namespace of the same user, which a process of the fence can join (setns(2)),
//! and whose way out, pasta or slirp4netns, runs outside: its gateway is the host. Such a namespace is neither.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::SockContext};
use qfence_common::netns::MAX_LEVELS;

use crate::maps::{ALLOW_NETNS, FENCE_CGROUP, MARKS, NETNS_OFFSETS, marks::marks};

/// Whether a socket that is being made may be in its network namespace, of which this is the cookie. The first one
/// makes that the fence's home.
#[inline(always)]
pub(crate) fn may_be_in(ctx: &SockContext, cookie: u64) -> bool {
    let Some(marks) = MARKS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the map's value, aligned and alive as long as the program runs.
    let home = unsafe { &raw mut (*marks).home };
    // SAFETY: as above; a word, which others see whole.
    match unsafe { home.read_volatile() } {
        // SAFETY: as above.
        0 => unsafe { home.write_volatile(cookie) },
        home if home == cookie => {}
        _ => return ALLOW_NETNS.load() != 0 || was_made_in_the_fence(ctx),
    }
    true
}

/// Whether this is the cookie of the fence's home.
#[inline(always)]
pub(crate) fn is_home(cookie: u64) -> bool {
    marks().is_some_and(|marks| marks.home == cookie)
}

/// Whether the network namespace of a socket was made by a process of the fence; see [`qfence_common::netns`].
/// What cannot be read was not.
#[inline(always)]
fn was_made_in_the_fence(ctx: &SockContext) -> bool {
    let offsets = NETNS_OFFSETS.load();
    let fence = FENCE_CGROUP.load();
    if offsets.are_known == 0 || fence == 0 {
        return false;
    }
    // At run time the context is the address of the kernel's socket (`__cgroup_bpf_run_filter_sk`). Bounded, as the
    // verifier wants it of what is added to a context.
    let socket = ctx.sock as u64;
    let namespace = read(socket + u64::from(offsets.sock_net & MOST));
    let rtnl = read(namespace + u64::from(offsets.net_rtnl));
    let mut cgroup = read(rtnl + u64::from(offsets.sock_cgroup));
    for _ in 0..MAX_LEVELS / STRIDE {
        cgroup = qfence_cgroups_above(cgroup);
        if cgroup <= IS_THE_FENCE {
            break;
        }
    }
    cgroup == IS_THE_FENCE
}

/// How many cgroups are looked at in one go.
const STRIDE: usize = 4;

const _: () = assert!(MAX_LEVELS.is_multiple_of(STRIDE));

/// The same as [`qfence_cgroup_above`], of so many more cgroups.
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

/// Where the fence's cgroup was met: no address.
const IS_THE_FENCE: u64 = 1;

/// The address of the cgroup above one, or [`IS_THE_FENCE`] if this one is that; 0 if there is none. Global, see
/// `judge/policy.rs`: what it does is not looked at anew in each round of a loop.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_cgroup_above(cgroup: u64) -> u64 {
    // Before Linux 5.15 the lowest bit says that this is a class of cgroup v1 instead.
    if cgroup == 0 || cgroup & 1 != 0 {
        return 0;
    }
    let offsets = NETNS_OFFSETS.load();
    let node = read(cgroup + u64::from(offsets.cgroup_node));
    if read(node + u64::from(offsets.node_id)) == FENCE_CGROUP.load() {
        return IS_THE_FENCE;
    }
    let above = read(cgroup + u64::from(offsets.cgroup_parent));
    // The lowest bit is not set in an address.
    above.saturating_sub(u64::from(offsets.cgroup_self)) & !IS_THE_FENCE
}

/// More than any offset in a socket.
const MOST: u32 = 0xfff;

/// A word of the kernel's; 0 where there is none.
#[inline(always)]
fn read(address: u64) -> u64 {
    // SAFETY: the helper reads what can be read, and fails for all else.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.unwrap_or(0)
}
