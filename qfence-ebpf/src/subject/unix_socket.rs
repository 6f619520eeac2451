//! Unix sockets of the kernel, by their addresses: the cgroup of the maker, and the name.
//!
//! The maker is decisive: a socket has the cgroup of the process that made it, and nobody can change that. The sockets of
//! systemd's socket units are made by the service manager itself, in its own cgroup `init.scope`. The name is what the
//! socket was bound to (`unix_sock.addr`): it stays when the file is renamed, linked, or mounted elsewhere.

use core::{hint::black_box, ptr::from_ref};

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_probe_read_kernel as read_bytes, bpf_probe_read_kernel_str as read_text},
    },
};
use qfence_common::manager::{NAME_BYTES, UNIT, UNIT_LEVELS};

use crate::{
    maps::{MANAGER_NAMES, MANAGER_OFFSETS, NETNS_OFFSETS},
    subject::netns::{above, is_of_the_fence, read},
};

/// A Unix socket: the address of its `struct sock`.
#[derive(Clone, Copy)]
pub(crate) struct UnixSocket(pub(crate) u64);

impl UnixSocket {
    /// The socket of a `struct socket`.
    #[inline(always)]
    pub(crate) fn of(socket: u64) -> Self {
        Self(read(socket + u64::from(MANAGER_OFFSETS.load().socket_sock)))
    }

    /// The type of the socket; 0 if it cannot be read.
    #[inline(always)]
    pub(crate) fn kind(self) -> u32 {
        let address = self.0 + u64::from(MANAGER_OFFSETS.load().sock_type);
        // SAFETY: the helper fails for addresses that cannot be read.
        let kind = unsafe { bpf_probe_read_kernel(address as *const u16) };
        u32::from(kind.unwrap_or(0))
    }

    /// Whether it was made in the fence.
    #[inline(always)]
    pub(crate) fn is_of_the_fence(self) -> bool {
        is_of_the_fence(self.cgroup())
    }

    /// Whether a manager made it: one of the nearest cgroups is a manager's. True if that cannot be read.
    #[inline(always)]
    pub(crate) fn is_a_managers(self) -> bool {
        let mut cgroup = self.cgroup();
        if cgroup == 0 {
            return true;
        }
        for _ in 0..UNIT_LEVELS {
            cgroup = qfence_unit(cgroup);
            if cgroup <= IS_A_MANAGERS {
                break;
            }
        }
        cgroup == IS_A_MANAGERS
    }

    #[inline(always)]
    fn cgroup(self) -> u64 {
        read(self.0 + u64::from(NETNS_OFFSETS.load().sock_cgroup))
    }

    /// The class of its name; 0 if it has none. A whole word: the verifier does not learn a register's upper half from a
    /// comparison of the lower one.
    #[inline(always)]
    pub(crate) fn class(self) -> u64 {
        qfence_socket_class(self.0)
    }
}

/// The length of a name in the trie.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const BYTES: u32 = NAME_BYTES as u32;

// The length of a socket's name is masked.
const _: () = assert!(BYTES.is_power_of_two());

/// A name as the key of the trie. Aligned, so that it is zeroed by words.
#[repr(C)]
struct Name {
    bits: u32,
    bytes: [u32; NAME_BYTES / 4],
}

impl Name {
    #[inline(always)]
    const fn empty() -> Self {
        Self {
            bits: 8 * BYTES,
            bytes: [0; NAME_BYTES / 4],
        }
    }

    /// The class of the longest prefix in the trie; 0 if there is none.
    #[inline(always)]
    fn class(&self) -> u32 {
        // SAFETY: both have the same fields at the same offsets, and the other type is packed.
        let key = unsafe { &*from_ref(self).cast::<Key<[u8; NAME_BYTES]>>() };
        MANAGER_NAMES.get(key).copied().unwrap_or(0)
    }
}

/// The result if a cgroup is a manager's. It is no address.
const IS_A_MANAGERS: u64 = 1;

/// The end of the name of a socket unit. Such a unit has a cgroup of its own if it has its own network namespace.
const SOCKET_UNIT: u64 = u64::from_le_bytes(*b".socket\0");

/// Returns the address of the parent of a cgroup; [`IS_A_MANAGERS`] if the cgroup is a manager's, or its name cannot be
/// read; 0 if there is no parent.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_unit(cgroup: u64) -> u64 {
    let node = read(cgroup + u64::from(NETNS_OFFSETS.load().cgroup_node));
    let text = read(node + u64::from(MANAGER_OFFSETS.load().node_name));
    let mut name = Name::empty();
    // SAFETY: the buffer has this size. The helper fails for addresses that cannot be read.
    let length = unsafe { read_text((&raw mut name.bytes).cast(), BYTES, text as *const _) };
    // With the zero at its end.
    let Ok(length) = u64::try_from(length) else {
        return IS_A_MANAGERS;
    };
    let is_socket_unit = length > 8 && read(text + length - 8) == SOCKET_UNIT;
    if is_socket_unit || name.class() == UNIT {
        return IS_A_MANAGERS;
    }
    above(cgroup)
}

/// Returns the class of the name of a socket; 0 if it has no name, or its name has no class.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn qfence_socket_class(socket: u64) -> u64 {
    let offsets = MANAGER_OFFSETS.load();
    let address = read(socket + u64::from(offsets.unix_address));
    if address == 0 {
        return 0;
    }
    let length = address + u64::from(offsets.address_length);
    // SAFETY: the helper fails for addresses that cannot be read.
    let length = unsafe { bpf_probe_read_kernel(length as *const u32) }.unwrap_or(FAMILY);
    let mut name = Name::empty();
    // Masked, not compared: the verifier must see the bound in the register that the helper gets.
    let length = black_box(length.wrapping_sub(FAMILY)) & (BYTES - 1);
    let text = address + u64::from(offsets.address_name) + u64::from(FAMILY);
    // SAFETY: the buffer has more bytes. The helper fails for addresses that cannot be read.
    let failed = unsafe { read_bytes((&raw mut name.bytes).cast(), length, text as *const _) };
    if failed != 0 {
        return 0;
    }
    u64::from(name.class())
}

/// The size of `sun_family`, which precedes the name.
const FAMILY: u32 = 2;
