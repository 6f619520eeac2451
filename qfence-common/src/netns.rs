//! The place where the kernel records the maker of a network namespace.
//!
//! `rtnetlink_net_init` creates a kernel socket for each namespace (`net->rtnl`), in the task that creates the
//! namespace. Each socket keeps the cgroup of the task that created it (`cgroup_sk_alloc` in kernel/cgroup/cgroup.c).
//! So this socket gives the cgroup of the namespace's maker, whatever processes have joined the namespace since.
//! Measured on Linux 6.18 and 6.1.

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `sock_common.skc_net.net`: a socket's network namespace.
    pub sock_net: u32,
    /// `net.rtnl`: the kernel socket that is created with a namespace.
    pub net_rtnl: u32,
    /// `sock.sk_cgrp_data`, whose first word is the socket's cgroup.
    pub sock_cgroup: u32,
    /// `cgroup.self.parent`: the `self` of the parent cgroup.
    pub cgroup_parent: u32,
    /// `cgroup.self`, to compute the address of a cgroup from the address of its `self`.
    pub cgroup_self: u32,
    /// `cgroup.kn`: the directory of a cgroup.
    pub cgroup_node: u32,
    /// `kernfs_node.id`: the inode of the directory.
    pub node_id: u32,
    /// 1 if the others are known; otherwise 0.
    pub are_known: u32,
}

const _: () = assert!(size_of::<Offsets>() == 32 && align_of::<Offsets>() == 4);

/// The maximum number of cgroups that are checked on the way up from the cgroup of the namespace's maker, which is the
/// first of them. If a process of a fence nests cgroups deeper than this below the fence's cgroup, namespaces that it
/// makes there count as foreign.
pub const MAX_LEVELS: usize = 32;

/// In the flags of a socket's owner: the socket is in a network namespace that was made in the fence.
pub const INSIDE: u32 = 1 << 16;

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}
