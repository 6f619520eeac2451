//! The inner maps of trees: arrays of nodes that are described by sizes, not by types, as tries are.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, bpf_map_type::BPF_MAP_TYPE_ARRAY},
    helpers::bpf_map_lookup_elem,
};
use qfence_common::{Node, Nodes};

use crate::maps::TREES;

/// An array of nodes, as the loader reads it from the program's type information. The flag lets each
/// that takes its place be of another length.
#[repr(C)]
pub(crate) struct Tree {
    r#type: *const [i32; BPF_MAP_TYPE_ARRAY as usize],
    key_size: *const [i32; size_of::<u32>()],
    value_size: *const [i32; size_of::<Node>()],
    max_entries: *const [i32; 1],
    map_flags: *const [i32; BPF_F_INNER_MAP as usize],
}

impl Tree {
    #[inline(always)]
    fn get(&self, index: u32) -> Option<Node> {
        let map = core::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `self` is the map, as an array of maps hands it out, and the key is of its size.
        let node = unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(&index).cast()) };
        // SAFETY: null, or a value of the map's, of the size and alignment of a node. Nothing changes
        // the trees of a policy in force.
        unsafe { node.cast::<Node>().as_ref().copied() }
    }
}

/// The trees of all policies there are.
pub(crate) struct Trees;

impl Nodes for Trees {
    #[inline(always)]
    fn node(&self, half: u32, index: u32) -> Option<Node> {
        TREES.get(half)?.get(index)
    }
}
