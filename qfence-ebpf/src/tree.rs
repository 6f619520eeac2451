//! The inner map of the policy: an array of nodes that is described by sizes, not by types.
//!
//! The loader makes it at run time, without type information (BTF). Up to Linux 6.2 the kernel takes a
//! map into an array of maps only if the template is without it as well: `bpf_map_meta_equal` compares
//! `timer_off`, which is -EINVAL for a map without BTF and -ENOENT for one whose type has no timer.
//! aya's own `Array` describes its types, hence this one.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, bpf_map_type::BPF_MAP_TYPE_ARRAY},
    helpers::bpf_map_lookup_elem,
};
use qfence_common::{Node, Nodes};

/// An array of nodes, as the loader reads it from the program's type information: each field is a
/// number, the length of an array type. The flag lets each that takes its place be of another length.
#[repr(C)]
pub(crate) struct Tree {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; size_of::<u32>()],
    value_size: *const [i32; size_of::<Node>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; BPF_F_INNER_MAP as usize],
}

impl Nodes for Tree {
    #[inline(always)]
    fn read(&self, index: u32) -> Option<Node> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `self` is the map, as an array of maps hands it out, and the key is of its size.
        let node = unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(&index).cast()) };
        // SAFETY: null, or a value of the map's, of the size and alignment of a node, which stays
        // readable until the program ends (RCU). Nothing changes the nodes of a policy in force.
        unsafe { node.cast::<Node>().as_ref() }.copied()
    }
}
