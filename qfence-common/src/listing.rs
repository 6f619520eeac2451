//! The sockets of processes that ran before their fence was attached, as the iterators over their descriptors find them.

/// A socket that a process has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OpenSocket {
    /// The id of the cgroup in which the socket was made.
    pub cgroup: u64,
    /// The cookie of its network namespace.
    pub netns: u64,
    /// The process.
    pub pid: u32,
    /// The number of the descriptor.
    pub fd: u32,
    /// `sk_family`.
    pub family: u32,
    /// `sk_type`.
    pub kind: u32,
    /// `sk_protocol`.
    pub protocol: u32,
    /// `skc_num`: the local port.
    pub port: u32,
    /// `skc_state`.
    pub state: u32,
    /// 1 if it was made in the fence's cgroup or below; otherwise 0.
    pub is_of_the_fence: u32,
}

const _: () = assert!(size_of::<OpenSocket>() == 48 && align_of::<OpenSocket>() == 8);

/// A local port that a process of the fence listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OpenPort {
    /// The cookie of the network namespace.
    pub netns: u64,
    /// The port.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<OpenPort>() == 16 && align_of::<OpenPort>() == 8);

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.cgroups`: the cgroups of a task.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`: the one of cgroup v2 among them.
    pub default_cgroup: u32,
    /// `task_struct.tgid`: the process.
    pub task_process: u32,
    /// `task_struct.pid`: the thread.
    pub task_thread: u32,
    /// `task_struct.comm`: the name.
    pub task_name: u32,
    /// `task_struct.cred`: the credentials.
    pub task_credentials: u32,
    /// `cred.uid`: the user.
    pub user: u32,
    /// `sock_common.skc_family`.
    pub family: u32,
    /// `sock_common.skc_state`.
    pub state: u32,
    /// `sock_common.skc_num`.
    pub port: u32,
    /// `sock.sk_type`.
    pub kind: u32,
    /// `sock.sk_protocol`.
    pub protocol: u32,
    /// `net.net_cookie`.
    pub netns_cookie: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Offsets>() == 56 && align_of::<Offsets>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OpenSocket {}

// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for OpenPort {}
