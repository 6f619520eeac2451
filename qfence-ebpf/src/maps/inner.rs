//! Inner maps, which are in the slot of an outer map. They are declared by sizes instead of types.
//!
//! The loader creates them at run time, without type information (BTF). Up to Linux 6.2 the kernel accepts a map in an
//! array of maps only if the template has no BTF either: `bpf_map_meta_equal` compares `timer_off`, which is -EINVAL
//! for a map without BTF, and -ENOENT for a map whose type has no timer. aya's own maps have type information, so they
//! cannot be used here.

use core::ptr::from_ref;

use aya_ebpf::{
    bindings::{
        BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_NOEXIST,
        bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE},
    },
    helpers::{bpf_map_lookup_elem, bpf_map_update_elem},
};
use qfence_common::{AttemptKey, Hits, Node, Nodes, Repeats, Sighting, abi, tree::Front};

/// A map, as returned by an array of maps.
///
/// # Safety
/// The value is a map, and its keys and values have the sizes of these types.
pub(crate) unsafe trait Inner: Sized {
    type Key;
    type Value;

    /// Returns the value of a key; null if there is none.
    #[inline(always)]
    fn find(&self, key: &Self::Key) -> *mut Self::Value {
        // SAFETY: `self` is the map, and the key has its key size.
        unsafe { bpf_map_lookup_elem(self.map(), from_ref(key).cast()) }.cast()
    }

    /// Adds a key. Returns false if the key already exists or there is no room.
    #[inline(always)]
    fn add(&self, key: &Self::Key, value: &Self::Value) -> bool {
        // SAFETY: as above, and the value has the map's value size.
        let failed = unsafe {
            bpf_map_update_elem(
                self.map(),
                from_ref(key).cast(),
                from_ref(value).cast(),
                u64::from(BPF_NOEXIST),
            )
        };
        failed == 0
    }

    #[inline(always)]
    fn map(&self) -> *mut core::ffi::c_void {
        from_ref(self).cast_mut().cast()
    }
}

const NO_FLAGS: u32 = 0;

/// Declares an inner map in the form that the loader reads from the program's type information: each field is a number,
/// given as the length of an array type.
macro_rules! inner {
    ($(#[$doc:meta])* $name:ident, $type:ident, $key:ty => $value:ty, $max_entries:expr, $flags:ident) => {
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            r#type: *const [i32; $type as usize],
            key_size: *const [i32; size_of::<$key>()],
            value_size: *const [i32; size_of::<$value>()],
            max_entries: *const [i32; $max_entries as usize],
            map_flags: *const [i32; $flags as usize],
        }

        // SAFETY: the kernel accepts only such maps in the slots that are declared with this type.
        unsafe impl Inner for $name {
            type Key = $key;
            type Value = $value;
        }
    };
}

inner!(
    /// The nodes of a policy. The flag allows arrays of any length in the slot.
    Tree, BPF_MAP_TYPE_ARRAY, u32 => Node, 1, BPF_F_INNER_MAP
);
inner!(
    /// The first nodes of a policy, as its only value. Without a flag, all arrays in the slot have this length, so the kernel
    /// puts look-ups in place of the calls of them (`array_map_gen_lookup`). Some releases of Linux 6.1 to 6.3 then find the
    /// first value at each index, mended by "bpf: Fix elem_size not being set for inner maps".
    FirstNodes, BPF_MAP_TYPE_ARRAY, u32 => Front, 1, NO_FLAGS
);
inner!(
    /// The known attempt keys and their counts. The kernel accepts hash maps of any size in the slot.
    Keys, BPF_MAP_TYPE_HASH, AttemptKey => Repeats, abi::KEYS, BPF_F_NO_PREALLOC
);
inner!(
    /// Attempt keys that do not fit in `Keys`, and their counts.
    MoreKeys, BPF_MAP_TYPE_LPM_TRIE, WholeKey => Repeats, abi::MORE_KEYS, BPF_F_NO_PREALLOC
);
inner!(
    /// The number of times that each destination was let through.
    Sightings, BPF_MAP_TYPE_HASH, Sighting => u64, abi::SIGHTINGS, BPF_F_NO_PREALLOC
);
inner!(
    /// The decisions of rules: for each CPU in turn, one block of [`qfence_common::verdict::MAX_RULES`] entries.
    MoreHits, BPF_MAP_TYPE_ARRAY, u32 => Hits, 1, BPF_F_INNER_MAP
);

/// An attempt key as the key of a trie, with full prefix length.
#[repr(C, packed(4))]
pub(crate) struct WholeKey {
    bits: u32,
    key: AttemptKey,
}

impl WholeKey {
    #[inline(always)]
    pub(crate) const fn new(key: &AttemptKey) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
        let bits = 8 * size_of::<AttemptKey>() as u32;
        Self { bits, key: *key }
    }
}

impl Nodes for Tree {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no tree has more nodes")]
    fn read(&self, index: usize) -> Option<Node> {
        // SAFETY: null, or a value of the map with the size and alignment of a node, which stays readable until the
        // program ends (RCU). Nothing changes the nodes of a policy in force.
        unsafe { self.find(&(index as u32)).as_ref() }.copied()
    }
}
