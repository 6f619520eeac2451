//! Maps that stand in a slot of another: described by sizes, not by types.
//!
//! The loader makes them at run time, without type information (BTF). Up to Linux 6.2 the kernel takes a
//! map into an array of maps only if the template is without it as well: `bpf_map_meta_equal` compares
//! `timer_off`, which is -EINVAL for a map without BTF and -ENOENT for one whose type has no timer.
//! aya's own maps describe their types, hence these.

use core::ptr::from_ref;

use aya_ebpf::{
    bindings::{
        BPF_F_INNER_MAP, BPF_F_NO_PREALLOC, BPF_NOEXIST,
        bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE},
    },
    helpers::{bpf_map_lookup_elem, bpf_map_update_elem},
};
use qfence_common::{AttemptKey, Hits, Node, Nodes, Repeats, Sighting, abi};

/// A map as an array of maps hands it out.
///
/// # Safety
/// It is one, and its keys and values are of the sizes of these types.
pub(crate) unsafe trait Inner: Sized {
    type Key;
    type Value;

    /// The value of a key; null if there is none.
    #[inline(always)]
    fn find(&self, key: &Self::Key) -> *mut Self::Value {
        // SAFETY: `self` is the map, and the key is of its size.
        unsafe { bpf_map_lookup_elem(self.map(), from_ref(key).cast()) }.cast()
    }

    /// Adds a key; whether it was not there, and there was room for it.
    #[inline(always)]
    fn add(&self, key: &Self::Key, value: &Self::Value) -> bool {
        // SAFETY: as above, and the value is of its size.
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

/// Declares an inner map as the loader reads it from the program's type information: each field is a number,
/// the length of an array type.
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

        // SAFETY: such maps alone stand in the slots that are declared with it: the kernel sees to that.
        unsafe impl Inner for $name {
            type Key = $key;
            type Value = $value;
        }
    };
}

inner!(
    /// The nodes of a policy. The flag lets each array that takes its place be of another length.
    Tree, BPF_MAP_TYPE_ARRAY, u32 => Node, 1, BPF_F_INNER_MAP
);
inner!(
    /// What attempts are counted in, by their keys. The kernel lets one of another size take its place.
    Keys, BPF_MAP_TYPE_HASH, AttemptKey => Repeats, abi::KEYS, BPF_F_NO_PREALLOC
);
inner!(
    /// The same of keys for which there was no room.
    MoreKeys, BPF_MAP_TYPE_LPM_TRIE, WholeKey => Repeats, abi::MORE_KEYS, BPF_F_NO_PREALLOC
);
inner!(
    /// How often each destination was let through.
    Sightings, BPF_MAP_TYPE_HASH, Sighting => u64, abi::SIGHTINGS, BPF_F_NO_PREALLOC
);
inner!(
    /// How often rules have decided: of each CPU in turn, [`qfence_common::verdict::MAX_RULES`].
    MoreHits, BPF_MAP_TYPE_ARRAY, u32 => Hits, 1, BPF_F_INNER_MAP
);

/// An attempt key as the key of a trie, which is found by all of its bits alone.
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
    fn read(&self, index: u32) -> Option<Node> {
        // SAFETY: null, or a value of the map's, of the size and alignment of a node, which stays
        // readable until the program ends (RCU). Nothing changes the nodes of a policy in force.
        unsafe { self.find(&index).as_ref() }.copied()
    }
}
