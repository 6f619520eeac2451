//! The inner maps of trees: arrays of nodes that are described by sizes, not by types, as tries are.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, bpf_map_type::BPF_MAP_TYPE_ARRAY},
    helpers::bpf_map_lookup_elem,
};
use qfence_common::{Entry, Node, Nodes, entry::END};

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

/// The trees of one policy, looked up once for all steps down one of them.
pub(crate) struct Trees<'a>(Option<&'a Tree>);

impl Trees<'_> {
    /// Those that an entry refers to, if it refers to any.
    #[inline(always)]
    pub(crate) fn of(entry: Option<&Entry>) -> Self {
        Self(match entry {
            Some(entry) if entry.root != END => TREES.get(entry.half),
            _ => None,
        })
    }
}

impl Nodes for Trees<'_> {
    #[inline(always)]
    fn node(&self, _half: u32, index: u32) -> Option<Node> {
        self.0?.get(index)
    }
}
