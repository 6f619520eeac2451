//! The inner map of the policy: a longest-prefix trie that is described by sizes, not by types.
//!
//! The loader makes tries at run time, without type information (BTF). Up to Linux 6.2 the kernel
//! takes a map into an array of maps only if the template is without it as well:
//! `bpf_map_meta_equal` compares `timer_off`, which is -EINVAL for a map without BTF and -ENOENT for
//! one whose type has no timer. aya's own `LpmTrie` describes its types, hence this one.

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_LPM_TRIE},
    btf_maps::lpm_trie::Key,
    helpers::bpf_map_lookup_elem,
};
use qfence_common::{Entry, address};

/// A trie from addresses to entries, as the loader reads it from the program's type information:
/// each field is a number, the length of an array type.
#[repr(C)]
pub(crate) struct Trie {
    r#type: *const [i32; BPF_MAP_TYPE_LPM_TRIE as usize],
    key_size: *const [i32; size_of::<Key<address::Key>>()],
    value_size: *const [i32; size_of::<Entry>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

impl Trie {
    /// The entry of the longest prefix that holds the key's address.
    #[inline(always)]
    pub(crate) fn get<'a>(&self, key: &Key<address::Key>) -> Option<&'a Entry> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `self` is the map, as an array of maps hands it out, and the key is of its size.
        let entry = unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(key).cast()) };
        // SAFETY: null, or a value of the map's, of the size and alignment of an entry, which stays
        // readable until the program ends (RCU). Nothing changes the entries of a trie in force.
        unsafe { entry.cast::<Entry>().as_ref() }
    }
}
