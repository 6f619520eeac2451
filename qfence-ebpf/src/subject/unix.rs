//! Reads the names of Unix sockets, and the root directory of the current process.

use core::hint::black_box;

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_get_current_task, bpf_probe_read_kernel,
        generated::{
            bpf_probe_read_kernel as probe_read_kernel,
            bpf_probe_read_kernel_str as probe_read_kernel_str,
        },
    },
    programs::SockAddrContext,
};
use qfence_common::unix::{LONGEST, Name, ROOM, WORDS};

use crate::maps::{MARKS, UNIX_OFFSETS, marks::marks};

/// A name as the key of a trie, at an address at which its words are aligned.
#[repr(C, align(8))]
pub(crate) struct SocketName {
    padding: u32,
    key: Key<Name>,
}

/// The size of `sun_family`, before the name (linux/un.h).
const FAMILY: u32 = 2;

/// The last offset in a context: the offsets are masked, because the verifier requires a bound for numbers that are added
/// to a context.
const MOST: u32 = 0xfff;

/// The last length in the room of a name.
#[expect(clippy::cast_possible_truncation, reason = "a hundred")]
const MOST_BYTES: u32 = ROOM as u32 - 1;

impl SocketName {
    #[expect(clippy::cast_possible_truncation, reason = "a thousand")]
    pub(crate) const EMPTY: Self = Self {
        padding: 0,
        key: Key::new(8 * ROOM as u32, [0; WORDS]),
    };

    /// Reads the name of a call. Returns its length in bytes, or 0 if it cannot be read.
    ///
    /// At run time the context is a `struct bpf_sock_addr_kern`, which the helper can read; the program cannot read the
    /// name in any other way that aya supports.
    #[inline(always)]
    pub(crate) fn read(&mut self, ctx: &SockAddrContext) -> u32 {
        let offsets = UNIX_OFFSETS.load();
        if offsets.are_known == 0 {
            return 0;
        }
        let context = ctx.sock_addr as u64;
        let address = read::<u64>(context + u64::from(offsets.address & MOST));
        let length = read::<u32>(context + u64::from(offsets.length & MOST)).wrapping_sub(FAMILY);
        if address == 0 || length == 0 || length > LONGEST {
            return 0;
        }
        let path = address + u64::from(FAMILY);
        // The verifier accepts the mask. The comparison above is of another register, so the compiler must not derive
        // from it that the mask has no effect.
        let bounded = black_box(length) & MOST_BYTES;
        if read::<u8>(path) == 0 {
            // SAFETY: the room is one byte longer than the bound. The helper fails for addresses that cannot be read.
            let failed = unsafe { probe_read_kernel(self.room(), bounded, path as *const _) };
            return if failed == 0 { length } else { 0 };
        }
        // SAFETY: as above; the helper writes a zero byte after the path.
        let read = unsafe { probe_read_kernel_str(self.room(), bounded + 1, path as *const _) };
        u32::try_from(read - 1).unwrap_or(0)
    }

    #[inline(always)]
    fn room(&mut self) -> *mut core::ffi::c_void {
        (&raw mut self.key.data).cast()
    }

    /// The words of the name.
    #[inline(always)]
    pub(crate) fn words(&self) -> &Name {
        let name = &raw const self.key.data;
        // SAFETY: the key is behind four bytes of this type, and has four bytes before the name, so the name is
        // aligned.
        unsafe { &*name }
    }

    /// The name as a key.
    #[inline(always)]
    pub(crate) fn key(&self) -> &Key<Name> {
        &self.key
    }

    /// Whether the name is abstract.
    #[inline(always)]
    pub(crate) fn is_abstract(&self) -> bool {
        let [first, ..] = self.words()[0].to_ne_bytes();
        first == 0
    }
}

/// Whether the root directory of the current process is that of the fence's first one. False if it cannot be read.
#[inline(always)]
pub(crate) fn is_at_root() -> bool {
    marks().is_some_and(|marks| marks.root[0] != 0 && marks.root == root())
}

/// Notes the root directory of the current process, which makes the fence's proof.
#[inline(always)]
pub(crate) fn note_root() {
    let Some(marks) = MARKS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the map's value.
    let place = unsafe { &raw mut (*marks).root };
    let root = root();
    // SAFETY: it is aligned and alive as long as the program runs. Only one process makes the proof, before the command is
    // executed.
    unsafe { place.write_volatile(root) };
}

/// The root directory of the current process: its mount and its entry. Zero if they cannot be read.
#[inline(always)]
fn root() -> [u64; 2] {
    let offsets = UNIX_OFFSETS.load();
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    let fs = read::<u64>(task + u64::from(offsets.task_fs));
    [
        read(fs + u64::from(offsets.root_mount)),
        read(fs + u64::from(offsets.root_entry)),
    ]
}

/// Reads kernel memory; 0 if it cannot be read.
#[inline(always)]
fn read<T: Default>(address: u64) -> T {
    // SAFETY: the helper fails for addresses that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const T) }.unwrap_or_default()
}
