//! Where the kernel notes who made a network namespace.
//!
//! `rtnetlink_net_init` makes a kernel socket for each namespace (`net->rtnl`), in the task that makes the namespace, and
//! a socket notes the cgroup of the task that makes it (`cgroup_sk_alloc` in kernel/cgroup/cgroup.c). So the
//! namespace's maker was in that cgroup, whoever has joined the namespace since. Measured on Linux 6.18 and 6.1.

/// Offsets in bytes, each within the kernel's type that is named. They differ from kernel to kernel: the loader reads
/// them from the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `sock_common.skc_net.net`: a socket's network namespace.
    pub sock_net: u32,
    /// `net.rtnl`: the kernel socket that was made with a namespace.
    pub net_rtnl: u32,
    /// `sock.sk_cgrp_data`, which begins with the cgroup of a socket.
    pub sock_cgroup: u32,
    /// `cgroup.self.parent`: the `self` of the cgroup above.
    pub cgroup_parent: u32,
    /// `cgroup.self`, to come from that to its cgroup.
    pub cgroup_self: u32,
    /// `cgroup.kn`: the directory of a cgroup.
    pub cgroup_node: u32,
    /// `kernfs_node.id`, which is the inode of the directory.
    pub node_id: u32,
    /// 1 if the others are known; otherwise 0.
    pub are_known: u32,
}

const _: () = assert!(size_of::<Offsets>() == 32 && align_of::<Offsets>() == 4);

/// How many cgroups above the namespace's maker are looked at, itself included. A fence's process that makes more of
/// them below its own cgroup loses the namespaces that it makes there.
pub const MAX_LEVELS: usize = 32;

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}
