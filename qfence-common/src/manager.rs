//! The names by which the programs of [`crate::hook::LSM_HOOKS`] recognise the Unix sockets of managers.
//!
//! Two kinds of names are looked up in one trie: the names of cgroups (a unit of systemd is a cgroup of the same name), and
//! the names that sockets are bound to. The longest prefix in the trie decides.

/// The length of a name in the trie, in bytes; shorter names are padded with zeros. A socket's name has at most 108 bytes,
/// and the name of a cgroup that is longer than this is that of no unit in the trie.
pub const NAME_BYTES: usize = 128;

/// The most names in the trie.
pub const MAX_NAMES: u32 = 512;

/// How many cgroups are looked up on the way up from that of a socket's maker, which is the first of them.
pub const UNIT_LEVELS: usize = 4;

/// The class of a socket's name that a process of the fence may connect to, also if a manager made it.
pub const EXEMPT: u32 = 1;
/// The class of a socket's name that is refused, whatever process made it.
pub const DENIED: u32 = 2;
/// The class of a cgroup's name: sockets that are made in it are a manager's.
pub const UNIT: u32 = 3;
/// The class of the names of the sockets that the proof connects to.
pub const PROOF: u32 = 4;

/// The errno of a refusal: EACCES (asm-generic/errno-base.h).
pub const ERRNO: i32 = 13;

/// Offsets in bytes, each within the named type of the kernel. They differ between kernels; the loader reads them from
/// the kernel's own type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `socket.sk`: the `sock` of a `socket`.
    pub socket_sock: u32,
    /// `sock.sk_type`: the type of a socket, in 16 bits.
    pub sock_type: u32,
    /// `unix_sock.addr`: the address that a Unix socket is bound to.
    pub unix_address: u32,
    /// `unix_address.len`: the length of the address, with its family.
    pub address_length: u32,
    /// `unix_address.name`: the `sockaddr_un`.
    pub address_name: u32,
    /// `kernfs_node.name`: the name of a cgroup's directory.
    pub node_name: u32,
}

const _: () = assert!(size_of::<Offsets>() == 24 && align_of::<Offsets>() == 4);

// SAFETY: a `repr(C)` struct of integers without padding (asserted above): any bytes are a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Offsets {}
