//! The entries of destinations.

use aya_ebpf::bindings::BPF_NOEXIST;
use qfence_common::{Flow, FlowKey, OTHERS};

use crate::maps::{FLOWS, FORGOTTEN};

#[inline(always)]
pub(super) fn find(key: &FlowKey) -> *mut Flow {
    FLOWS.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())
}

/// Returns the flow of a key, or if there is no room for it, the one of all others.
#[inline(always)]
pub(super) fn find_or_add(key: &FlowKey, rule: u32) -> *mut Flow {
    let flow = find(key);
    if !flow.is_null() {
        return flow;
    }
    let fresh = Flow {
        calls: 0,
        sent_packets: 0,
        sent_bytes: 0,
        received_packets: 0,
        received_bytes: 0,
        rule,
        reserved: 0,
    };
    // If it fails, another CPU has just added the key, or there is no room.
    let _ = FLOWS.insert(key, fresh, BPF_NOEXIST.into());
    let flow = find(key);
    if !flow.is_null() {
        return flow;
    }
    // What follows is to be counted although it begins nothing.
    if let Some(slot) = FORGOTTEN.get_ptr_mut(key.slot()) {
        // SAFETY: a value of the map, aligned and alive as long as the program runs. Nobody writes another flag.
        unsafe { slot.write_volatile(1) };
    }
    others()
}

/// Returns the flow of a key or, if its entry was removed or had no room, the one of all others: what arrives has no rule to
/// make an entry with.
#[inline(always)]
pub(super) fn find_or_others(key: &FlowKey) -> *mut Flow {
    let flow = find(key);
    if flow.is_null() && is_forgotten(key) {
        return others();
    }
    flow
}

/// Whether the fence reached a destination whose entry was removed, or had no room. Others with the same slot are taken for
/// such: accepted connections of theirs are counted as well.
#[inline(always)]
pub(super) fn is_forgotten(key: &FlowKey) -> bool {
    FORGOTTEN.get(key.slot()).is_some_and(|flag| *flag != 0)
}

#[inline(always)]
pub(super) fn others() -> *mut Flow {
    // On the stack: for a constant of its own, each fence would have one more map.
    let others = OTHERS;
    find(&others)
}
