//! The inner map of what attempts are counted in: a hash map that is described by sizes, for the reason
//! given in `tree.rs`.

use core::ptr::{from_ref, null_mut};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_map_type::BPF_MAP_TYPE_HASH},
    helpers::{bpf_map_lookup_elem, bpf_map_update_elem},
};
use qfence_common::{Kind, Repeats, abi};

/// A hash map of [`Repeats`] by [`Kind`], as the loader reads it from the program's type information.
#[repr(C)]
pub(crate) struct Kinds {
    r#type: *const [i32; BPF_MAP_TYPE_HASH as usize],
    key_size: *const [i32; size_of::<Kind>()],
    value_size: *const [i32; size_of::<Repeats>()],
    max_entries: *const [i32; abi::KINDS as usize],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

impl Kinds {
    /// What is counted of a kind; null if it is not known.
    #[inline(always)]
    pub(crate) fn find(&self, kind: &Kind) -> *mut Repeats {
        // SAFETY: `self` is the map, as an array of maps hands it out, and the key is of its size.
        let found = unsafe { bpf_map_lookup_elem(self.map(), from_ref(kind).cast()) };
        if found.is_null() {
            return null_mut();
        }
        found.cast()
    }

    /// Makes a kind known; whether it was not, and there was room for it.
    #[inline(always)]
    pub(crate) fn add(&self, kind: &Kind, repeats: &Repeats) -> bool {
        // SAFETY: as above, and the value is of its size.
        let failed = unsafe {
            bpf_map_update_elem(
                self.map(),
                from_ref(kind).cast(),
                from_ref(repeats).cast(),
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
